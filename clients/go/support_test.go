package headrace_test

// What the steps of the scenario share: requests, what is read of a stream, and what must be seen.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"headrace.dev/go"
	pb "headrace.dev/go/headrace/v1"
)

const echoed = "You said: one two three This answer comes from the fake provider, one word at a time."

var (
	slowText    = slowTokens(64)
	transitions = []pb.RequestState{
		pb.RequestState_REQUEST_STATE_VALIDATING, pb.RequestState_REQUEST_STATE_REQUESTING,
		pb.RequestState_REQUEST_STATE_STREAMING, pb.RequestState_REQUEST_STATE_COMPLETED,
	}
)

func slowTokens(count int) (text string) {
	for i := range count {
		text += fmt.Sprintf(" tok%d", i)
	}
	return text
}

func dial(t *testing.T, variable string, options ...grpc.DialOption) *headrace.Client {
	t.Helper()
	client, err := headrace.New(os.Getenv(variable), append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func requestTo(provider string) *pb.GenerateRequest {
	request := headrace.Prompt("one two three")
	request.RequestId, request.Provider = headrace.NewID(), provider
	request.Fallback = &pb.FallbackConfig{Enabled: proto.Bool(false)}
	return request
}

func generate(request *pb.GenerateRequest) *pb.StreamGenerateRequest {
	return &pb.StreamGenerateRequest{Command: &pb.StreamGenerateRequest_Generate{Generate: request}}
}

// received yields the events of a stream of the stubs.
func received(rpc pb.GenerationService_StreamGenerateClient) iter.Seq2[*pb.GenerationEvent, error] {
	return func(yield func(*pb.GenerationEvent, error) bool) {
		for {
			response, err := rpc.Recv()
			if err != nil {
				if err != io.EOF {
					yield(nil, err)
				}
				return
			}
			for _, event := range response.GetEvents() {
				if !yield(event, nil) {
					return
				}
			}
		}
	}
}

type summary struct {
	transitions []*pb.StateTransition
	chunks      []*pb.StreamChunk
	text        string
	last        *pb.GenerationEvent
}

func collect(t *testing.T, events iter.Seq2[*pb.GenerationEvent, error]) (seen summary) {
	t.Helper()
	for event, err := range events {
		must(t, err)
		if transition := event.GetTransition(); transition != nil {
			seen.transitions = append(seen.transitions, transition)
		}
		if chunk := event.GetChunk(); chunk != nil {
			seen.chunks = append(seen.chunks, chunk)
			seen.text += chunk.GetText()
		}
		seen.last = event
	}
	return seen
}

func checkSlow(t *testing.T, seen summary) {
	t.Helper()
	checkTransitions(t, seen.transitions)
	for i, chunk := range seen.chunks {
		equal(t, "index", chunk.GetIndex(), int32(i))
		equal(t, "only the last chunk has a finish reason", chunk.GetFinishReason() != 0, i == len(seen.chunks)-1)
	}
	equal(t, "finish reason", seen.chunks[len(seen.chunks)-1].GetFinishReason(), pb.FinishReason_FINISH_REASON_STOP)
	equal(t, "text", seen.text, slowText)
	result := seen.last.GetCompleted()
	equal(t, "parts", len(result.GetContent()), 1)
	equal(t, "text of the result", result.GetContent()[0].GetText(), slowText)
	equal(t, "output tokens", result.GetUsage().GetOutputTokens(), 64)
}

func checkTransitions(t *testing.T, seen []*pb.StateTransition) {
	t.Helper()
	from, states := pb.RequestState_REQUEST_STATE_IDLE, []pb.RequestState{}
	for _, transition := range seen {
		equal(t, "state that is left", transition.GetFromState(), from)
		from = transition.GetToState()
		states = append(states, from)
	}
	equal(t, "states", fmt.Sprint(states), fmt.Sprint(transitions))
}

func checkCancelled(t *testing.T, ctx context.Context, client *headrace.Client, request *pb.GenerateRequest, failed *pb.ProviderError) {
	t.Helper()
	equal(t, "code", failed.GetCode(), pb.ErrorCode_ERROR_CODE_CANCELLED)
	partial := failed.GetPartial().GetContent()[0].GetText()
	equal(t, "a beginning of the text", strings.HasPrefix(slowText, partial) && len(partial) < len(slowText), true)
	record := recordOf(t, ctx, client, request)
	equal(t, "state", record.GetState(), pb.RequestState_REQUEST_STATE_FAILED)
	equal(t, "error code", record.GetErrorCode(), pb.ErrorCode_ERROR_CODE_CANCELLED)
}

func recordOf(t *testing.T, ctx context.Context, client *headrace.Client, request *pb.GenerateRequest) *pb.RequestRecord {
	t.Helper()
	response, err := client.Request.GetRequest(ctx, &pb.GetRequestRequest{RequestId: request.RequestId})
	must(t, err)
	return response.GetRequest()
}

func failure(t *testing.T, err error) *headrace.Error {
	t.Helper()
	var failed *headrace.Error
	if !errors.As(err, &failed) {
		t.Fatalf("not an error of Headrace: %v", err)
	}
	return failed
}

func report(t *testing.T, step string, ok bool) {
	path := os.Getenv("HEADRACE_CLIENT_RESULTS")
	if path == "" {
		return
	}
	line, err := json.Marshal(map[string]any{"language": "go", "step": step, "ok": ok})
	must(t, err)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(t, err)
	defer file.Close()
	_, err = file.Write(append(line, '\n'))
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
