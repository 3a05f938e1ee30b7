package headrace

import (
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "headrace.dev/go/headrace/v1"
)

// Generation is one generation of a Session.
type Generation struct {
	Request *pb.GenerateRequest // as it was sent, with its id

	session    *Session
	arrived    *sync.Cond
	events     []*pb.GenerationEvent
	err        error
	ended      bool
	cancelled  bool
	nextIndex  int32 // how many chunks came
	sinceChunk int   // how many transitions came after the last of them
	seen       int   // how many of those will come again
}

// Events yields the events that have not been read yet, as they come, `completed` last. A generation that fails ends with an *Error.
func (g *Generation) Events() iter.Seq2[*pb.GenerationEvent, error] {
	return func(yield func(*pb.GenerationEvent, error) bool) {
		for {
			event, err := g.next()
			if event == nil && err == nil || !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Cancel asks the server to end the generation. The last event tells how it ended.
func (g *Generation) Cancel() {
	g.session.mu.Lock()
	defer g.session.mu.Unlock()
	g.cancelled = true // where no stream is open, the next one begins with it
	if g.session.stream != nil && !g.ended {
		g.sendCancel(g.session.stream)
	}
}

// next waits for an event. Neither an event nor an error: there are no more.
func (g *Generation) next() (event *pb.GenerationEvent, err error) {
	g.session.mu.Lock()
	defer g.session.mu.Unlock()
	for len(g.events) == 0 && !g.ended {
		g.arrived.Wait()
	}
	if len(g.events) == 0 {
		return nil, g.err
	}
	event, g.events = g.events[0], g.events[1:]
	return event, nil
}

// send starts the generation on a stream, or takes it up where the last stream left it. The reader learns of a stream that broke.
func (g *Generation) send(stream pb.GenerationService_StreamGenerateClient) {
	g.seen, g.sinceChunk = g.sinceChunk, 0
	if g.nextIndex == 0 { // the server may not know it yet; if it does, the id attaches to it
		_ = stream.Send(&pb.StreamGenerateRequest{Command: &pb.StreamGenerateRequest_Generate{Generate: g.Request}})
	} else {
		resume := &pb.ResumeCommand{RequestId: g.Request.RequestId, NextIndex: g.nextIndex}
		_ = stream.Send(&pb.StreamGenerateRequest{Command: &pb.StreamGenerateRequest_Resume{Resume: resume}})
	}
	if g.cancelled {
		g.sendCancel(stream)
	}
}

func (g *Generation) sendCancel(stream pb.GenerationService_StreamGenerateClient) {
	cancel := &pb.CancelCommand{RequestId: g.Request.RequestId}
	_ = stream.Send(&pb.StreamGenerateRequest{Command: &pb.StreamGenerateRequest_Cancel{Cancel: cancel}})
}

// take keeps an event for the reader. The session's lock is held.
func (g *Generation) take(event *pb.GenerationEvent) {
	switch e := event.GetEvent().(type) {
	case *pb.GenerationEvent_Transition:
		g.sinceChunk++
		if g.sinceChunk <= g.seen {
			return
		}
	case *pb.GenerationEvent_Chunk:
		if e.Chunk.GetIndex() != g.nextIndex {
			g.end(typed(status.Errorf(codes.DataLoss, "chunk %d came where %d was due", e.Chunk.GetIndex(), g.nextIndex)))
			return
		}
		g.nextIndex, g.sinceChunk, g.seen = g.nextIndex+1, 0, 0
	case *pb.GenerationEvent_Failed:
		g.end(failure(e.Failed))
		return
	case *pb.GenerationEvent_Completed:
		defer g.end(nil)
	}
	g.events = append(g.events, event)
	g.arrived.Broadcast()
}

func (g *Generation) end(err error) {
	g.err, g.ended = err, true
	delete(g.session.running, g.Request.RequestId)
	g.arrived.Broadcast()
}

// Text reduces events to the pieces of text. An answer that starts again at another provider (MID_STREAM_FALLBACK_RESTART) is an error
// here.
func Text(events iter.Seq2[*pb.GenerationEvent, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for event, err := range events {
			if event.GetDiscontinuity() != nil {
				err = errors.New("headrace: the answer starts again, which its text alone cannot show: read Events")
			}
			if text := event.GetChunk().GetText(); (text != "" || err != nil) && (!yield(text, err) || err != nil) {
				return
			}
		}
	}
}

// NewID is a random UUID.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
