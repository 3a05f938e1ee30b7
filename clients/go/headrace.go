// Package headrace is a client of Headrace. It streams answers, runs many generations over one stream, resumes them after a lost
// connection, cancels them, and gives every error a type. All else is in the stubs, headrace.dev/go/headrace/v1.
package headrace

import (
	"cmp"
	"context"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "headrace.dev/go/headrace/v1"
)

// A stream that is lost is followed by another one, so often in a row where they bring nothing. The pauses begin with this one and double.
const maxTries, firstPause = 8, 50 * time.Millisecond

// lost are the codes that libraries and proxies give a stream that broke. A generation's own error comes as its last event.
var lost = []codes.Code{codes.Unavailable, codes.Canceled, codes.Internal}

// Client is a connection with the stubs on it. What their RPCs return is an *Error.
type Client struct {
	*grpc.ClientConn
	Generation pb.GenerationServiceClient
	Request    pb.RequestServiceClient
}

// New makes a client; target and options are those of grpc.NewClient.
func New(target string, options ...grpc.DialOption) (*Client, error) {
	c, err := grpc.NewClient(target, append(options, grpc.WithChainUnaryInterceptor(typeUnary), grpc.WithChainStreamInterceptor(typeStream))...)
	return &Client{c, pb.NewGenerationServiceClient(c), pb.NewRequestServiceClient(c)}, err
}

// Prompt is a request of one message of the user.
func Prompt(text string) *pb.GenerateRequest {
	content := []*pb.ContentPart{{Part: &pb.ContentPart_Text{Text: text}}}
	return &pb.GenerateRequest{Messages: []*pb.ChatMessage{{Role: pb.MessageRole_MESSAGE_ROLE_USER, Content: content}}}
}

// NewID is a random UUID.
func NewID() string { return uuid.NewString() }

// Text reduces the events of one generation to its text, piece by piece. An answer that starts again at another provider
// (MID_STREAM_FALLBACK_RESTART) is an error here.
func Text(events iter.Seq2[*pb.GenerationEvent, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for event, err := range events {
			if event.GetDiscontinuity() != nil {
				err = typed(status.Error(codes.Aborted, "the answer starts again, which its text alone cannot show: read Events"))
			}
			if text := event.GetChunk().GetText(); (text != "" || err != nil) && (!yield(text, err) || err != nil) {
				return
			}
		}
	}
}

// Events runs generations over one stream, and yields what they tell as it comes, each one's in order; the RequestId of an event says
// whose it is. The last one of a generation is `completed`, or `failed` with an *Error beside it. When the stream is lost, another one
// goes on from there, and where that is not possible, the loop ends with an *Error that has no event.
//
// To leave the loop or to end ctx cancels what still runs, except what was asked for with on_disconnect DRAIN or KEEP. A request that
// does not say is sent with KEEP, so that a lost connection does not end it, and one that has no id gets one. UUIDs are sent in lower case,
// as events tell them. Where two requests have the same id, nothing is sent, and the loop is an *Error.
func (c *Client) Events(ctx context.Context, requests ...*pb.GenerateRequest) iter.Seq2[*pb.GenerationEvent, error] {
	return func(yield func(*pb.GenerationEvent, error) bool) {
		running := map[string]*generation{}
		for _, request := range requests {
			g := &generation{request: proto.CloneOf(request), runsOn: request.GetOnDisconnect() >= pb.DisconnectPolicy_DISCONNECT_POLICY_DRAIN}
			if g.request.RequestId = cmp.Or(request.GetRequestId(), NewID()); uuid.Validate(g.request.RequestId) == nil {
				g.request.RequestId = strings.ToLower(g.request.RequestId)
			}
			g.request.OnDisconnect = cmp.Or(request.GetOnDisconnect(), pb.DisconnectPolicy_DISCONNECT_POLICY_KEEP)
			running[g.request.RequestId] = g
		}
		if len(running) < len(requests) {
			yield(nil, failure(&pb.ProviderError{Code: pb.ErrorCode_ERROR_CODE_INVALID_REQUEST, Message: "two requests have the same id"}, nil))
			return
		}
		defer c.cancel(ctx, running)
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		for try := 0; len(running) > 0; try++ {
			stream, err := c.open(ctx, running)
			for err == nil {
				var response *pb.StreamGenerateResponse
				if response, err = stream.Recv(); err == io.EOF {
					err = typed(status.Error(codes.Unavailable, "the stream ended before the generation did"))
				}
				for _, event := range response.GetEvents() {
					g, chunk := running[event.GetRequestId()], event.GetChunk()
					if g != nil && chunk != nil && chunk.GetIndex() != g.nextIndex {
						err = typed(status.Errorf(codes.DataLoss, "chunk %d came where %d was due", chunk.GetIndex(), g.nextIndex))
						break
					}
					if g == nil || g.hasTold(event) {
						continue
					}
					if event.GetCompleted() != nil || event.GetFailed() != nil {
						delete(running, event.GetRequestId())
					}
					if try = 0; !yield(event, failure(event.GetFailed(), nil)) || len(running) == 0 {
						return
					}
				}
			}
			if try == maxTries || ctx.Err() != nil || !slices.Contains(lost, status.Code(err)) {
				yield(nil, err)
				return
			}
			select {
			case <-time.After(firstPause << try):
			case <-ctx.Done(): // which is what the next stream says
			}
		}
	}
}

// open begins what runs on a new stream, or goes on there. A stream that is broken says so when it is read.
func (c *Client) open(ctx context.Context, running map[string]*generation) (pb.GenerationService_StreamGenerateClient, error) {
	stream, err := c.Generation.StreamGenerate(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range running {
		_ = stream.Send(g.command())
	}
	return stream, stream.CloseSend()
}

// cancel ends what runs and is not to run on. It returns when that is done, after 5 seconds at most.
func (c *Client) cancel(ctx context.Context, running map[string]*generation) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	var cancelling sync.WaitGroup
	defer cancelling.Wait()
	for id, g := range running {
		if !g.runsOn {
			cancelling.Add(1)
			go func() {
				defer cancelling.Done()
				_, _ = c.Request.CancelRequest(ctx, &pb.CancelRequestRequest{RequestId: id})
			}()
		}
	}
}

// generation is what is known of one that runs.
type generation struct {
	request           *pb.GenerateRequest
	runsOn            bool  // when its caller leaves
	nextIndex         int32 // how many chunks came
	sinceChunk, again int   // how many other events came after the last of them; how many of those the stream is still to tell again
}

// command begins the generation, or goes on with it on another stream.
func (g *generation) command() *pb.StreamGenerateRequest {
	g.again = g.sinceChunk
	if g.nextIndex == 0 { // the server may not know it yet; if it does, the id attaches to it
		return &pb.StreamGenerateRequest{Command: &pb.StreamGenerateRequest_Generate{Generate: g.request}}
	}
	resume := &pb.ResumeCommand{RequestId: g.request.RequestId, NextIndex: g.nextIndex}
	return &pb.StreamGenerateRequest{Command: &pb.StreamGenerateRequest_Resume{Resume: resume}}
}

// hasTold counts an event, and says whether it came before.
func (g *generation) hasTold(event *pb.GenerationEvent) bool {
	switch {
	case event.GetChunk() != nil:
		g.nextIndex, g.sinceChunk, g.again = g.nextIndex+1, 0, 0
	case g.again > 0 && event.GetCompleted() == nil && event.GetFailed() == nil:
		g.again--
		return true
	default:
		g.sinceChunk++
	}
	return false
}

// Error is why an RPC or a generation failed. Get at it with errors.As; status.Code gives the gRPC code of one that an RPC returned.
type Error struct {
	Code            pb.ErrorCode
	RetryAfter      time.Duration // 0: nobody named a delay
	FieldViolations []*pb.FieldViolation
	Detail          *pb.ProviderError // all that was told, with the message, and a subreason such as CONTEXT_LENGTH
	cause           error
}

func (e *Error) Error() string { return "headrace: " + e.Code.String() + ": " + e.Detail.GetMessage() }

// Unwrap gives the error of the RPC, from which status.Code and status.FromError read.
func (e *Error) Unwrap() error { return e.cause }

func failure(d *pb.ProviderError, cause error) error {
	if d == nil {
		return nil
	}
	return &Error{d.GetCode(), d.GetRateLimit().GetRetryAfter().AsDuration(), d.GetFieldViolations(), d, cause}
}

// codeOf is for statuses that come from the connection and not from Headrace.
var codeOf = map[codes.Code]pb.ErrorCode{
	codes.Canceled:         pb.ErrorCode_ERROR_CODE_CANCELLED,
	codes.DeadlineExceeded: pb.ErrorCode_ERROR_CODE_TIMEOUT,
	codes.Unavailable:      pb.ErrorCode_ERROR_CODE_NETWORK_ERROR,
}

// typed makes an *Error of a status; other errors, such as io.EOF, stay what they are.
func typed(err error) error {
	s, isStatus := status.FromError(err)
	if err == nil || !isStatus {
		return err
	}
	told := &pb.ProviderError{Code: cmp.Or(codeOf[s.Code()], pb.ErrorCode_ERROR_CODE_UNKNOWN_ERROR)}
	var violations []*pb.FieldViolation
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *pb.ProviderError: // without its violations, and its message may be cut
			told = d
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				violations = append(violations, &pb.FieldViolation{Field: v.GetField(), Description: v.GetDescription()})
			}
		}
	}
	told.Message, told.FieldViolations = s.Message(), violations
	return failure(told, err)
}

func typeUnary(ctx context.Context, method string, in, out any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	return typed(invoke(ctx, method, in, out, c, o...))
}

func typeStream(ctx context.Context, desc *grpc.StreamDesc, c *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, c, method, o...)
	return typedStream{stream}, typed(err)
}

type typedStream struct{ grpc.ClientStream }

func (s typedStream) RecvMsg(message any) error { return typed(s.ClientStream.RecvMsg(message)) }
