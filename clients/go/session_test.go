package headrace_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"headrace.dev/go"
	pb "headrace.dev/go/headrace/v1"
)

// stream is what a scripted server does on one stream: it tells events of the generation that the first command is about, and ends.
type stream struct {
	events []*pb.GenerationEvent
	end    error
}

// errStay keeps the stream open until the client goes away.
var errStay = errors.New("stay")

// scripted is a server that plays one stream after the other and remembers the commands.
type scripted struct {
	pb.UnimplementedGenerationServiceServer
	mu       sync.Mutex
	streams  []stream
	commands []*pb.StreamGenerateRequest
	left     chan struct{} // one for each client that went away
}

func (s *scripted) StreamGenerate(rpc grpc.BidiStreamingServer[pb.StreamGenerateRequest, pb.StreamGenerateResponse]) error {
	command, err := rpc.Recv()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.streams[len(s.commands)]
	s.commands = append(s.commands, command)
	for _, event := range next.events {
		event.RequestId = command.GetGenerate().GetRequestId() + command.GetResume().GetRequestId()
		if err := rpc.Send(&pb.StreamGenerateResponse{Events: []*pb.GenerationEvent{event}}); err != nil {
			return err
		}
	}
	if next.end == errStay {
		<-rpc.Context().Done()
		s.left <- struct{}{}
	}
	return next.end
}

// serve starts the server and gives a client of it.
func serve(t *testing.T, streams ...stream) (*scripted, *headrace.Client) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service, server := &scripted{streams: streams, left: make(chan struct{}, 1)}, grpc.NewServer()
	pb.RegisterGenerationServiceServer(server, service)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	client, err := headrace.New(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return service, client
}

func transition(state pb.RequestState) *pb.GenerationEvent {
	return &pb.GenerationEvent{Event: &pb.GenerationEvent_Transition{Transition: &pb.StateTransition{ToState: state}}}
}

func chunk(index int32, text string) *pb.GenerationEvent {
	return &pb.GenerationEvent{Event: &pb.GenerationEvent_Chunk{
		Chunk: &pb.StreamChunk{Index: index, Delta: &pb.StreamChunk_Text{Text: text}},
	}}
}

func completed() *pb.GenerationEvent {
	return &pb.GenerationEvent{Event: &pb.GenerationEvent_Completed{Completed: &pb.GenerationResult{}}}
}

func kept() *pb.GenerateRequest {
	request := headrace.Prompt("Hello")
	request.OnDisconnect = pb.DisconnectPolicy_DISCONNECT_POLICY_KEEP
	return request
}

// read gives what a generation told, in words, and how it ended.
func read(client *headrace.Client, request *pb.GenerateRequest) (string, error) {
	var told []string
	for event, err := range client.Events(context.Background(), request) {
		switch e := event.GetEvent().(type) {
		case nil:
			return strings.Join(told, " "), err
		case *pb.GenerationEvent_Transition:
			told = append(told, e.Transition.GetToState().String())
		case *pb.GenerationEvent_Chunk:
			told = append(told, e.Chunk.GetText())
		case *pb.GenerationEvent_Completed:
			told = append(told, "completed")
		}
	}
	return strings.Join(told, " "), nil
}

const validating, streaming = pb.RequestState_REQUEST_STATE_VALIDATING, pb.RequestState_REQUEST_STATE_STREAMING

func TestNothingIsToldTwiceWhenStreamsAreLost(t *testing.T) {
	lost := status.Error(codes.Unavailable, "gone")
	service, client := serve(
		t,
		stream{[]*pb.GenerationEvent{transition(validating)}, lost},
		stream{[]*pb.GenerationEvent{transition(validating), transition(streaming), chunk(0, "a"), chunk(1, "b")}, lost},
		stream{[]*pb.GenerationEvent{chunk(2, "c"), completed()}, nil},
	)
	told, err := read(client, kept())
	if want := "REQUEST_STATE_VALIDATING REQUEST_STATE_STREAMING a b c completed"; told != want || err != nil {
		t.Errorf("got %q, %v; want %q", told, err, want)
	}
	if id := service.commands[0].GetGenerate().GetRequestId(); id == "" || service.commands[1].GetGenerate().GetRequestId() != id {
		t.Errorf("before the first chunk the same request should be sent again: %v", service.commands)
	}
	if resume := service.commands[2].GetResume(); resume.GetNextIndex() != 2 {
		t.Errorf("two chunks have come, and then %v was sent", service.commands[2])
	}
}

func TestLostStreamIsAnErrorWhenTheGenerationEndsWithIt(t *testing.T) {
	_, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a")}, status.Error(codes.Unavailable, "gone")})
	told, err := read(client, headrace.Prompt("Hello"))
	var failure *headrace.Error
	if told != "a" || !errors.As(err, &failure) || failure.Code != pb.ErrorCode_ERROR_CODE_NETWORK_ERROR {
		t.Errorf("got %q, %v", told, err)
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the code of the RPC is hidden: %v", status.Code(err))
	}
}

func TestStreamWithoutAnEndIsAnErrorWhenTheStatusIsOK(t *testing.T) {
	_, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a")}, nil})
	if told, err := read(client, headrace.Prompt("Hello")); told != "a" || err == nil {
		t.Errorf("got %q, %v", told, err)
	}
}

func TestServerLearnsOfItWhenTheLoopIsLeft(t *testing.T) {
	service, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a")}, errStay})
	for text, err := range headrace.Text(client.Events(t.Context(), headrace.Prompt("Hello"))) {
		if text != "a" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
		break
	}
	<-service.left
}

func TestCancelledContextIsAnErrorWithItsCode(t *testing.T) {
	service, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a")}, errStay})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var failure *headrace.Error
	for text, err := range headrace.Text(client.Events(ctx, kept())) {
		if cancel(); text != "a" && (!errors.As(err, &failure) || failure.Code != pb.ErrorCode_ERROR_CODE_CANCELLED) {
			t.Errorf("got %q, %v", text, err)
		}
	}
	if <-service.left; failure == nil {
		t.Error("the loop ended without an error")
	}
}

func TestReconnectingEndsWithTheDeadlineWhenNobodyListens(t *testing.T) {
	client, err := headrace.New("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	var failure *headrace.Error
	for text, err := range headrace.Text(client.Events(ctx, kept())) {
		if !errors.As(err, &failure) {
			t.Errorf("got %q, %v", text, err)
		}
	}
	if failure == nil || failure.Code != pb.ErrorCode_ERROR_CODE_TIMEOUT {
		t.Errorf("got %v", failure)
	}
}

func TestMissingChunkIsAnError(t *testing.T) {
	_, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a"), chunk(2, "c"), completed()}, nil})
	if told, err := read(client, headrace.Prompt("Hello")); told != "a" || err == nil || !strings.Contains(err.Error(), "chunk 2") {
		t.Errorf("got %q, %v", told, err)
	}
}

func TestTextIsAnErrorWhenTheAnswerStartsAgain(t *testing.T) {
	again := &pb.GenerationEvent{Event: &pb.GenerationEvent_Discontinuity{Discontinuity: &pb.Discontinuity{}}}
	_, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a"), again, chunk(1, "A"), completed()}, nil})
	var last error
	for _, err := range headrace.Text(client.Events(context.Background(), headrace.Prompt("Hello"))) {
		last = err
	}
	if last == nil {
		t.Error("the text of two answers was joined")
	}
}
