// Package headrace is a client of Headrace. It streams answers, runs many generations over one stream, resumes them after a lost
// connection, and gives every error a type. All else is in the stubs, headrace.dev/go/headrace/v1.
package headrace

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	pb "headrace.dev/go/headrace/v1"
)

// Client is a connection with the stubs on it. What their RPCs return is an *Error.
type Client struct {
	*grpc.ClientConn
	Generation pb.GenerationServiceClient
	Request    pb.RequestServiceClient
	Provider   pb.ProviderServiceClient
	Analytics  pb.AnalyticsServiceClient
}

// New makes a client; target and options are those of grpc.NewClient.
func New(target string, options ...grpc.DialOption) (*Client, error) {
	options = append(options, grpc.WithChainUnaryInterceptor(typeUnaryErrors), grpc.WithChainStreamInterceptor(typeStreamErrors))
	c, err := grpc.NewClient(target, options...)
	return &Client{c, pb.NewGenerationServiceClient(c), pb.NewRequestServiceClient(c), pb.NewProviderServiceClient(c), pb.NewAnalyticsServiceClient(c)}, err
}

// Prompt is a request of one message of the user.
func Prompt(text string) *pb.GenerateRequest {
	content := []*pb.ContentPart{{Part: &pb.ContentPart_Text{Text: text}}}
	return &pb.GenerateRequest{Messages: []*pb.ChatMessage{{Role: pb.MessageRole_MESSAGE_ROLE_USER, Content: content}}}
}

// Events runs one generation on a stream of its own; see Generation.Events. To leave the loop, or to cancel ctx, is to go away: the
// request's on_disconnect says what becomes of the generation then.
func (c *Client) Events(ctx context.Context, request *pb.GenerateRequest) iter.Seq2[*pb.GenerationEvent, error] {
	return func(yield func(*pb.GenerationEvent, error) bool) {
		session := c.Session(ctx)
		defer session.Close()
		session.Start(request).Events()(yield)
	}
}
