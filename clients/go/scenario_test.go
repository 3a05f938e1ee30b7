package headrace_test

// The steps of tests/clients/README.md, each named as there.

import (
	"context"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"headrace.dev/go"
	pb "headrace.dev/go/headrace/v1"
)

func needService(t *testing.T) {
	t.Helper()
	if os.Getenv("HEADRACE_TARGET") == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no service: run this by `make test-clients`")
		}
		t.Skip("there is no service: run this by `make test-clients`")
	}
}

// No step of the scenario.
func TestWrongIDsFailWithTheErrorOfTheServiceAndOthersGoOn(t *testing.T) {
	needService(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	one, good, other := requestTo("echo"), requestTo("echo"), requestTo("echo")
	one.RequestId, other.RequestId, other.Temperature = "Mine", "Mine too", proto.Float64(3)
	violations, text := map[string]string{}, ""
	for event, err := range dial(t, "HEADRACE_TARGET").Events(ctx, one, good, other) {
		if err != nil {
			for _, violation := range failure(t, err).FieldViolations {
				violations[event.GetRequestId()] += " " + violation.GetField()
			}
			continue
		}
		equal(t, "request id", event.GetRequestId(), good.RequestId)
		text += event.GetChunk().GetText()
	}
	equal(t, "text", text, echoed)
	equal(t, "refused", len(violations), 2)
	equal(t, one.RequestId, violations[one.RequestId], " request_id")
	equal(t, other.RequestId, violations[other.RequestId], " request_id temperature")
}

func TestScenario(t *testing.T) {
	needService(t)
	steps := []struct {
		name string
		run  func(t *testing.T, ctx context.Context, client *headrace.Client)
	}{
		{"unary", unary},
		{"stream", stream64},
		{"tool_call", toolCall},
		{"two_on_one_stream", twoOnOneStream},
		{"cancel", cancel},
		{"deadline", deadline},
		{"resume", resume},
		{"rate_limit", rateLimit},
		{"invalid", invalid},
		{"watch", watch},
		{"vectors", vectors},
	}
	client := dial(t, "HEADRACE_TARGET")
	for _, step := range steps {
		ok := t.Run(step.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			step.run(t, ctx, client)
		})
		report(t, step.name, ok)
	}
}

func unary(t *testing.T, ctx context.Context, client *headrace.Client) {
	request := requestTo("echo")
	var header metadata.MD
	response, err := client.Generation.Generate(ctx, request, grpc.Header(&header))
	must(t, err)
	result := response.GetResult()
	equal(t, "request id", response.GetRequestId(), request.RequestId)
	equal(t, "header", header.Get("x-request-id")[0], request.RequestId)
	equal(t, "parts", len(result.GetContent()), 1)
	equal(t, "text", result.GetContent()[0].GetText(), echoed)
	equal(t, "finish reason", result.GetFinishReason(), pb.FinishReason_FINISH_REASON_STOP)
	equal(t, "provider", result.GetProvider(), "echo")
	usage := &pb.Usage{InputTokens: 3, OutputTokens: 17, TotalTokens: 20, Source: pb.UsageSource_USAGE_SOURCE_PROVIDER}
	if !proto.Equal(result.GetUsage(), usage) {
		t.Errorf("usage is %v", result.GetUsage())
	}
}

func stream64(t *testing.T, ctx context.Context, client *headrace.Client) {
	rpc, err := client.Generation.StreamGenerate(ctx)
	must(t, err)
	must(t, rpc.Send(generate(requestTo("slow"))))
	must(t, rpc.CloseSend())
	seen := collect(t, received(rpc))
	equal(t, "last event", seen.last.GetCompleted() != nil, true)
	checkSlow(t, seen)
	_, err = rpc.Recv()
	equal(t, "end of the RPC", err, io.EOF)

	checkSlow(t, collect(t, client.Events(ctx, requestTo("slow"))))
	text := ""
	for piece, err := range headrace.Text(client.Events(ctx, requestTo("echo"))) {
		must(t, err)
		text += piece
	}
	equal(t, "text", text, echoed)
}

func toolCall(t *testing.T, ctx context.Context, client *headrace.Client) {
	request := requestTo("tool")
	request.Tools = []*pb.Tool{{
		Name: "get_weather", Description: "The weather in a city.",
		ParametersJson: `{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`,
	}}
	call, result := &pb.ToolCall{}, (*pb.GenerationResult)(nil)
	for event, err := range client.Events(ctx, request) {
		must(t, err)
		if delta := event.GetChunk().GetToolCall(); delta != nil {
			equal(t, "position", delta.GetPosition(), 0)
			call.Id, call.Name, call.ArgumentsJson = call.Id+delta.GetId(), call.Name+delta.GetName(), call.ArgumentsJson+delta.GetArgumentsDelta()
		}
		result = event.GetCompleted()
	}
	want := &pb.ToolCall{Id: "call_weather_1", Name: "get_weather", ArgumentsJson: `{"city":"Paris"}`}
	if !proto.Equal(call, want) || len(result.GetContent()) != 1 || !proto.Equal(result.GetContent()[0].GetToolCall(), want) {
		t.Errorf("the call was %v in chunks, and in the result %v", call, result.GetContent())
	}
	equal(t, "finish reason", result.GetFinishReason(), pb.FinishReason_FINISH_REASON_TOOL_CALLS)

	next := requestTo("echo")
	next.Tools = request.Tools
	answer := &pb.ContentPart{Part: &pb.ContentPart_ToolResult{ToolResult: &pb.ToolResult{
		ToolCallId: "call_weather_1", Content: []*pb.ContentPart{{Part: &pb.ContentPart_Text{Text: "sunny"}}},
	}}}
	next.Messages = append(next.Messages,
		&pb.ChatMessage{Role: pb.MessageRole_MESSAGE_ROLE_ASSISTANT, Content: result.GetContent()},
		&pb.ChatMessage{Role: pb.MessageRole_MESSAGE_ROLE_TOOL, Content: []*pb.ContentPart{answer}})
	response, err := client.Generation.Generate(ctx, next)
	must(t, err)
	if text := response.GetResult().GetContent()[0].GetText(); !strings.HasPrefix(text, "You said: sunny ") {
		t.Errorf("the answer is %q", text)
	}
}

func twoOnOneStream(t *testing.T, ctx context.Context, client *headrace.Client) {
	slow, echo := requestTo("slow"), requestTo("echo")
	text, results, ended := map[string]string{}, map[string]string{}, []string{}
	for event, err := range client.Events(ctx, slow, echo) {
		must(t, err)
		text[event.GetRequestId()] += event.GetChunk().GetText()
		if result := event.GetCompleted(); result != nil {
			results[event.GetRequestId()] = result.GetContent()[0].GetText()
			ended = append(ended, event.GetRequestId())
		}
	}
	equal(t, "text of echo", text[echo.RequestId], echoed)
	equal(t, "result of echo", results[echo.RequestId], echoed)
	equal(t, "text of slow", text[slow.RequestId], slowText)
	equal(t, "result of slow", results[slow.RequestId], slowText)
	equal(t, "echo ends before slow", strings.Join(ended, " "), echo.RequestId+" "+slow.RequestId)
}

func cancel(t *testing.T, ctx context.Context, client *headrace.Client) {
	request := requestTo("slow")
	rpc, err := client.Generation.StreamGenerate(ctx)
	must(t, err)
	must(t, rpc.Send(generate(request)))
	var last *pb.GenerationEvent
	for event, eventErr := range received(rpc) {
		if err = eventErr; err != nil {
			break
		}
		if last = event; event.GetChunk().GetIndex() == 0 && event.GetChunk() != nil {
			id := &pb.CancelCommand{RequestId: request.RequestId}
			must(t, rpc.Send(&pb.StreamGenerateRequest{Command: &pb.StreamGenerateRequest_Cancel{Cancel: id}}))
			must(t, rpc.CloseSend())
		}
	}
	equal(t, "code of the RPC", status.Code(err), codes.Canceled)
	checkCancelled(t, ctx, client, request, last.GetFailed())

	request = requestTo("slow")
	for event, eventErr := range client.Events(ctx, request) {
		if err = eventErr; event.GetChunk().GetIndex() == 0 && event.GetChunk() != nil {
			_, err := client.Request.CancelRequest(ctx, &pb.CancelRequestRequest{RequestId: request.RequestId})
			must(t, err)
		}
	}
	checkCancelled(t, ctx, client, request, failure(t, err).Detail)
}

func deadline(t *testing.T, ctx context.Context, client *headrace.Client) {
	request := requestTo("stuck")
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := client.Generation.Generate(short, request)
	equal(t, "code of the RPC", status.Code(err), codes.DeadlineExceeded)
	equal(t, "code of the error", failure(t, err).Code, pb.ErrorCode_ERROR_CODE_TIMEOUT)
	record := recordOf(t, ctx, client, request)
	for limit := time.Now().Add(5 * time.Second); record.GetState() != pb.RequestState_REQUEST_STATE_FAILED && time.Now().Before(limit); {
		time.Sleep(20 * time.Millisecond)
		record = recordOf(t, ctx, client, request)
	}
	equal(t, "state", record.GetState(), pb.RequestState_REQUEST_STATE_FAILED)
	equal(t, "error code", record.GetErrorCode(), pb.ErrorCode_ERROR_CODE_TIMEOUT)
}

func resume(t *testing.T, ctx context.Context, _ *headrace.Client) {
	var connections atomic.Int32
	client := dial(t, "HEADRACE_PROXY", grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		connections.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}))
	request := requestTo("slow")
	request.OnDisconnect = pb.DisconnectPolicy_DISCONNECT_POLICY_KEEP
	checkSlow(t, collect(t, client.Events(ctx, request)))
	if connections.Load() < 3 {
		t.Errorf("%d connections: it was not resumed twice", connections.Load())
	}
}

func rateLimit(t *testing.T, ctx context.Context, client *headrace.Client) {
	var trailer metadata.MD
	_, err := client.Generation.Generate(ctx, requestTo("limited"), grpc.Trailer(&trailer))
	equal(t, "code of the RPC", status.Code(err), codes.ResourceExhausted)
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	equal(t, "reason", info.GetReason(), "RATE_LIMIT_EXCEEDED")
	equal(t, "domain", info.GetDomain(), "headrace.dev")
	delay := retry.GetRetryDelay().AsDuration()
	equal(t, "delay between 7 s and 8.4 s", 7*time.Second <= delay && delay <= 8400*time.Millisecond, true)
	equal(t, "pushback", strings.Join(trailer.Get("grpc-retry-pushback-ms"), ","), "-1")
	failed := failure(t, err)
	equal(t, "code of the error", failed.Code, pb.ErrorCode_ERROR_CODE_RATE_LIMIT_EXCEEDED)
	equal(t, "delay of the error", failed.RetryAfter, delay)
	equal(t, "HTTP status", failed.Detail.GetHttpStatus(), 429)
}

func invalid(t *testing.T, ctx context.Context, client *headrace.Client) {
	request := requestTo("echo")
	request.Temperature = proto.Float64(3)
	request.Messages[0].Content = []*pb.ContentPart{{}}
	_, err := client.Generation.Generate(ctx, request)
	equal(t, "code of the RPC", status.Code(err), codes.InvalidArgument)
	var fields []string
	for _, violation := range failure(t, err).FieldViolations {
		fields = append(fields, violation.GetField())
	}
	slices.Sort(fields)
	equal(t, "fields", strings.Join(fields, " "), "messages[0].content[0] temperature")
}

func watch(t *testing.T, ctx context.Context, client *headrace.Client) {
	request := requestTo("slow")
	submitted, err := client.Generation.SubmitGeneration(ctx, &pb.SubmitGenerationRequest{Request: request})
	must(t, err)
	equal(t, "id", submitted.GetRequestId(), request.RequestId)
	equal(t, "state is not terminal", submitted.GetState() < pb.RequestState_REQUEST_STATE_COMPLETED, true)

	watching, err := client.Request.WatchRequest(ctx, &pb.WatchRequestRequest{RequestId: request.RequestId})
	must(t, err)
	var steps []*pb.StateTransition
	for {
		response, err := watching.Recv()
		if err == io.EOF {
			break
		}
		must(t, err)
		steps = append(steps, response.GetTransition())
	}
	checkTransitions(t, steps)
	equal(t, "more than a second", steps[len(steps)-1].GetTime().AsTime().Sub(steps[0].GetTime().AsTime()) > time.Second, true)

	attached, err := client.Generation.AttachGeneration(ctx, &pb.AttachGenerationRequest{RequestId: request.RequestId, NextIndex: 60})
	must(t, err)
	next, isCompleted := int32(60), false
	for {
		response, err := attached.Recv()
		if err == io.EOF {
			break
		}
		must(t, err)
		for _, event := range response.GetEvents() {
			if chunk := event.GetChunk(); chunk != nil {
				equal(t, "index", chunk.GetIndex(), next)
				next++
			}
			isCompleted = event.GetCompleted() != nil
		}
	}
	equal(t, "chunks after the 60th, and the end", next > 60 && isCompleted, true)
}
