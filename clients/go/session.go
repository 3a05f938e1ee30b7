package headrace

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "headrace.dev/go/headrace/v1"
)

// A stream that is lost is opened again so many times in a row, after waits that begin with reconnectDelay and double.
const (
	maxReconnects  = 8
	reconnectDelay = 50 * time.Millisecond
)

// Session runs generations over one stream. It may be used from several goroutines. When the stream is lost, another is opened, and
// those generations go on that outlive a connection, by DISCONNECT_POLICY_KEEP or _DRAIN; the others end with an error.
type Session struct {
	client  *Client
	ctx     context.Context
	cancel  context.CancelFunc
	mu      sync.Mutex
	stream  pb.GenerationService_StreamGenerateClient
	reading bool
	closed  bool
	running map[string]*Generation
}

// Session makes a session. Its stream is opened by the first Start and ends with ctx.
func (c *Client) Session(ctx context.Context) *Session {
	ctx, cancel := context.WithCancel(ctx)
	return &Session{client: c, ctx: ctx, cancel: cancel, running: map[string]*Generation{}}
}

// Close ends the session. What still runs loses its reader.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.stream != nil && len(s.running) == 0 {
		_ = s.stream.CloseSend() // the server ends the stream in good order, and then the reader cancels
	} else {
		s.cancel()
	}
}

// Start begins a generation. One without a request id gets one; with the id of one that runs in this session, it is that one.
func (s *Session) Start(request *pb.GenerateRequest) *Generation {
	g := &Generation{Request: proto.CloneOf(request), session: s, arrived: sync.NewCond(&s.mu)}
	if request.GetRequestId() == "" {
		g.Request.RequestId = NewID()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if running := s.running[g.Request.RequestId]; running != nil {
		return running
	}
	s.running[g.Request.RequestId] = g
	if s.stream != nil {
		g.send(s.stream)
	} else if !s.reading {
		s.reading = true
		go s.read()
	}
	return g
}

// read opens the stream, as often as is needed, and hands out what it brings, until it has ended and nothing runs any more.
func (s *Session) read() {
	for try := 0; ; try++ {
		stream, err := s.open()
		for err == nil {
			var response *pb.StreamGenerateResponse
			if response, err = stream.Recv(); err == nil {
				s.handOut(response.GetEvents())
				try = 0
			}
		}
		if !s.survives(err, try < maxReconnects) {
			return
		}
		select {
		case <-time.After(reconnectDelay << try):
		case <-s.ctx.Done():
		}
	}
}

func (s *Session) open() (pb.GenerationService_StreamGenerateClient, error) {
	stream, err := s.client.Generation.StreamGenerate(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.stream = stream
		for _, g := range s.running {
			g.send(stream)
		}
	}
	return stream, err
}

func (s *Session) handOut(events []*pb.GenerationEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, event := range events {
		if g := s.running[event.GetRequestId()]; g != nil {
			g.take(event)
		}
	}
}

// survives ends the generations that end with the stream, and tells whether any remain.
func (s *Session) survives(err error, again bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == io.EOF {
		err = typed(status.Error(codes.Unavailable, "the stream ended before the generation did"))
	}
	again = again && s.ctx.Err() == nil && isLost(err)
	for _, g := range s.running {
		if !again || g.Request.GetOnDisconnect() < pb.DisconnectPolicy_DISCONNECT_POLICY_DRAIN {
			g.end(err)
		}
	}
	s.stream, s.reading = nil, len(s.running) > 0
	if s.closed && !s.reading {
		s.cancel()
	}
	return s.reading
}

// isLost tells a stream that broke from one that Headrace ended: a refusal has a detail.
func isLost(err error) bool {
	var e *Error
	switch status.Code(err) {
	case codes.Unavailable:
		return true
	case codes.Canceled, codes.Internal: // libraries and proxies name a reset connection in their own ways
		return errors.As(err, &e) && e.Detail == nil
	default:
		return false
	}
}
