package headrace_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"headrace.dev/go"
	pb "headrace.dev/go/headrace/v1"
)

// stream is what a scripted server does on one stream: it takes all commands, tells events, of the first command's generation where they do
// not say of which, and ends.
type stream struct {
	events []*pb.GenerationEvent
	end    error
}

// errStay keeps the stream open until the client goes away.
var errStay = errors.New("stay")

// scripted is a server that plays one stream after the other, and remembers the commands of each and what was cancelled.
type scripted struct {
	pb.UnimplementedGenerationServiceServer
	pb.UnimplementedRequestServiceServer
	mu        sync.Mutex
	streams   []stream
	commands  [][]*pb.StreamGenerateRequest
	cancelled []string
	left      chan struct{} // one for each client that went away
}

func (s *scripted) StreamGenerate(rpc grpc.BidiStreamingServer[pb.StreamGenerateRequest, pb.StreamGenerateResponse]) error {
	var commands []*pb.StreamGenerateRequest
	for command, err := rpc.Recv(); err != io.EOF; command, err = rpc.Recv() {
		if err != nil {
			return err
		}
		commands = append(commands, command)
	}
	s.mu.Lock()
	next := s.streams[len(s.commands)]
	s.commands = append(s.commands, commands)
	s.mu.Unlock()
	for _, event := range next.events {
		if event.RequestId == "" {
			event.RequestId = commands[0].GetGenerate().GetRequestId() + commands[0].GetResume().GetRequestId()
		}
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

func (s *scripted) CancelRequest(_ context.Context, request *pb.CancelRequestRequest) (*pb.CancelRequestResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancelled = append(s.cancelled, request.GetRequestId())
	return &pb.CancelRequestResponse{}, nil
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
	pb.RegisterRequestServiceServer(server, service)
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

func failed(code pb.ErrorCode) *pb.GenerationEvent {
	return &pb.GenerationEvent{Event: &pb.GenerationEvent_Failed{Failed: &pb.ProviderError{Code: code, Message: "told"}}}
}

func of(request *pb.GenerateRequest, event *pb.GenerationEvent) *pb.GenerationEvent {
	event.RequestId = request.GetRequestId()
	return event
}

func hello() *pb.GenerateRequest {
	request := headrace.Prompt("Hello")
	request.RequestId = headrace.NewID()
	return request
}

// read gives what was told, in words, and the last error.
func read(client *headrace.Client, requests ...*pb.GenerateRequest) (string, error) {
	var told []string
	var last error
	for event, err := range client.Events(context.Background(), requests...) {
		if err != nil {
			last = err
		}
		switch e := event.GetEvent().(type) {
		case *pb.GenerationEvent_Transition:
			told = append(told, strings.TrimPrefix(e.Transition.GetToState().String(), "REQUEST_STATE_"))
		case *pb.GenerationEvent_Chunk:
			told = append(told, e.Chunk.GetText())
		case *pb.GenerationEvent_Completed:
			told = append(told, "completed")
		case *pb.GenerationEvent_Failed:
			told = append(told, "failed")
		}
	}
	return strings.Join(told, " "), last
}

const validating, streaming = pb.RequestState_REQUEST_STATE_VALIDATING, pb.RequestState_REQUEST_STATE_STREAMING

var lost = status.Error(codes.Unavailable, "gone")

func TestNothingIsToldTwiceWhenStreamsAreLost(t *testing.T) {
	service, client := serve(
		t,
		stream{nil, lost},
		stream{[]*pb.GenerationEvent{transition(validating), transition(streaming)}, lost},
		stream{[]*pb.GenerationEvent{transition(validating)}, lost}, // in the middle of what is told again
		stream{[]*pb.GenerationEvent{transition(validating), transition(streaming), chunk(0, "a"), chunk(1, "b")}, nil},
		stream{[]*pb.GenerationEvent{chunk(2, "c"), completed()}, nil},
	)
	request := headrace.Prompt("Hello")
	told, err := read(client, request)
	if want := "VALIDATING STREAMING a b c completed"; told != want || err != nil {
		t.Errorf("got %q, %v; want %q", told, err, want)
	}
	first := service.commands[0][0].GetGenerate()
	if first.GetRequestId() == "" || first.GetOnDisconnect() != pb.DisconnectPolicy_DISCONNECT_POLICY_KEEP {
		t.Errorf("%v was sent, which nothing can be resumed of", first)
	}
	if request.GetRequestId() != "" {
		t.Errorf("the caller's request was changed: %v", request)
	}
	for _, commands := range service.commands[1:4] {
		if !proto.Equal(commands[0].GetGenerate(), first) {
			t.Errorf("before the first chunk the same request should be sent again, not %v", commands)
		}
	}
	if resume := service.commands[4][0].GetResume(); resume.GetNextIndex() != 2 || resume.GetRequestId() != first.GetRequestId() {
		t.Errorf("two chunks have come, and then %v was sent", service.commands[4])
	}
	if len(service.cancelled) != 0 {
		t.Errorf("%v was cancelled, after its end", service.cancelled)
	}
}

func TestOnlyWhatStillRunsIsResumed(t *testing.T) {
	one, other := hello(), hello()
	service, client := serve(
		t,
		stream{[]*pb.GenerationEvent{of(one, chunk(0, "a")), of(other, chunk(0, "A")), of(one, completed())}, lost},
		stream{[]*pb.GenerationEvent{of(other, chunk(1, "B")), of(other, completed())}, nil},
	)
	if told, err := read(client, one, other); told != "a A completed B completed" || err != nil {
		t.Errorf("got %q, %v", told, err)
	}
	if len(service.commands[0]) != 2 {
		t.Errorf("not on one stream: %v", service.commands[0])
	}
	if commands := service.commands[1]; len(commands) != 1 || commands[0].GetResume().GetRequestId() != other.RequestId {
		t.Errorf("after the first one has ended, %v was sent", commands)
	}
}

func TestOthersGoOnWhenOneFails(t *testing.T) {
	one, other := hello(), hello()
	_, client := serve(t, stream{[]*pb.GenerationEvent{
		of(one, failed(pb.ErrorCode_ERROR_CODE_SERVER_ERROR)), of(other, chunk(0, "A")), of(other, completed()),
	}, nil})
	told, err := read(client, one, other)
	if told != "failed A completed" || failure(t, err).Code != pb.ErrorCode_ERROR_CODE_SERVER_ERROR {
		t.Errorf("got %q, %v", told, err)
	}
}

func TestIDIsSentInTheFormInWhichEventsTellIt(t *testing.T) {
	request := hello()
	end := []*pb.GenerationEvent{of(request, chunk(0, "a")), of(request, completed())}
	service, client := serve(t, stream{end, nil})
	id := request.RequestId
	request.RequestId = strings.ToUpper(id)
	if told, err := read(client, request); told != "a completed" || err != nil {
		t.Errorf("got %q, %v", told, err)
	}
	equal(t, "the id that was sent", service.commands[0][0].GetGenerate().GetRequestId(), id)
}

func TestNothingIsSentWhenTwoRequestsHaveTheSameID(t *testing.T) {
	service, client := serve(t)
	one, other := hello(), hello()
	other.RequestId = strings.ToUpper(one.RequestId)
	told, err := read(client, one, other)
	if told != "" || failure(t, err).Code != pb.ErrorCode_ERROR_CODE_INVALID_REQUEST {
		t.Errorf("got %q, %v", told, err)
	}
	if len(service.commands) != 0 {
		t.Errorf("%v was sent", service.commands)
	}
}

func TestLostStreamIsNoSuccessWhenTheServerHasEndedTheGeneration(t *testing.T) {
	request := headrace.Prompt("Hello")
	request.OnDisconnect = pb.DisconnectPolicy_DISCONNECT_POLICY_CANCEL
	service, client := serve(
		t,
		stream{[]*pb.GenerationEvent{chunk(0, "a")}, lost},
		stream{[]*pb.GenerationEvent{failed(pb.ErrorCode_ERROR_CODE_CANCELLED)}, status.Error(codes.Canceled, "told")},
	)
	told, err := read(client, request)
	if told != "a failed" || failure(t, err).Code != pb.ErrorCode_ERROR_CODE_CANCELLED {
		t.Errorf("got %q, %v", told, err)
	}
	if policy := service.commands[0][0].GetGenerate().GetOnDisconnect(); policy != request.OnDisconnect {
		t.Errorf("it was sent with %v", policy)
	}
}

func TestRefusedStreamIsAnErrorAtOnce(t *testing.T) {
	service, client := serve(t, stream{nil, status.Error(codes.PermissionDenied, "no")})
	told, err := read(client, hello())
	if told != "" || status.Code(err) != codes.PermissionDenied || failure(t, err).Detail.GetMessage() != "no" {
		t.Errorf("got %q, %v", told, err)
	}
	if len(service.commands) != 1 {
		t.Errorf("%d streams were opened", len(service.commands))
	}
}

func TestGenerationIsCancelledWhenTheLoopIsLeft(t *testing.T) {
	policies := map[pb.DisconnectPolicy]bool{
		pb.DisconnectPolicy_DISCONNECT_POLICY_UNSPECIFIED: true,
		pb.DisconnectPolicy_DISCONNECT_POLICY_CANCEL:      true,
		pb.DisconnectPolicy_DISCONNECT_POLICY_DRAIN:       false,
		pb.DisconnectPolicy_DISCONNECT_POLICY_KEEP:        false,
	}
	for policy, isCancelled := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			service, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a")}, errStay})
			request := hello()
			request.OnDisconnect = policy
			for text, err := range headrace.Text(client.Events(t.Context(), request)) {
				if text != "a" || err != nil {
					t.Errorf("got %q, %v", text, err)
				}
				break
			}
			<-service.left
			if slices.Contains(service.cancelled, request.RequestId) != isCancelled {
				t.Errorf("cancelled: %v", service.cancelled)
			}
		})
	}
}

func TestCancelledContextIsAnErrorAndCancels(t *testing.T) {
	service, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a")}, errStay})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, last := hello(), error(nil)
	for text, err := range headrace.Text(client.Events(ctx, request)) {
		if cancel(); text != "a" {
			last = err
		}
	}
	if <-service.left; failure(t, last).Code != pb.ErrorCode_ERROR_CODE_CANCELLED {
		t.Errorf("the loop ended with %v", last)
	}
	if !slices.Equal(service.cancelled, []string{request.RequestId}) {
		t.Errorf("cancelled: %v", service.cancelled)
	}
}

func TestDeadlineEndsTheLoopWhenNobodyListens(t *testing.T) {
	client, err := headrace.New("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	var last error
	for _, err := range headrace.Text(client.Events(ctx, hello())) {
		last = err
	}
	if failure(t, last).Code != pb.ErrorCode_ERROR_CODE_TIMEOUT {
		t.Errorf("got %v", last)
	}
}

func TestMissingChunkIsAnError(t *testing.T) {
	service, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a"), chunk(2, "c"), completed()}, nil})
	if told, err := read(client, hello()); told != "a" || err == nil || !strings.Contains(err.Error(), "chunk 2") {
		t.Errorf("got %q, %v", told, err)
	}
	if len(service.cancelled) != 1 {
		t.Errorf("cancelled: %v", service.cancelled)
	}
}

func TestTextIsAnErrorWhenTheAnswerStartsAgain(t *testing.T) {
	again := &pb.GenerationEvent{Event: &pb.GenerationEvent_Discontinuity{Discontinuity: &pb.Discontinuity{}}}
	_, client := serve(t, stream{[]*pb.GenerationEvent{chunk(0, "a"), again, chunk(1, "A"), completed()}, nil})
	var last error
	for _, err := range headrace.Text(client.Events(context.Background(), hello())) {
		last = err
	}
	if last == nil {
		t.Error("the text of two answers was joined")
	}
}
