package headrace

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "headrace.dev/go/headrace/v1"
)

// Error is why an RPC or a generation failed. Get at it with errors.As; status.Code gives the gRPC code of one that an RPC returned.
type Error struct {
	Code            pb.ErrorCode
	Subreason       string // finer, such as CONTEXT_LENGTH; empty where there is none
	Message         string
	RetryAfter      time.Duration // 0: nobody named a delay
	FieldViolations []*pb.FieldViolation
	Detail          *pb.ProviderError // all that was told; nil where the connection failed
	cause           error
}

func (e *Error) Error() string {
	words := strings.TrimSuffix(strings.TrimPrefix(e.Code.String(), "ERROR_CODE_")+"/"+e.Subreason, "/")
	return fmt.Sprintf("headrace: %s: %s", words, e.Message)
}

// Unwrap gives the error of the RPC, from which status.Code and status.FromError read.
func (e *Error) Unwrap() error { return e.cause }

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
	code, known := codeOf[s.Code()]
	if !known {
		code = pb.ErrorCode_ERROR_CODE_UNKNOWN_ERROR
	}
	e := &Error{Code: code}
	var violations []*pb.FieldViolation
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *pb.ProviderError:
			e = failure(d)
		case *errdetails.BadRequest: // the ProviderError of a status comes without them
			for _, v := range d.GetFieldViolations() {
				violations = append(violations, &pb.FieldViolation{Field: v.GetField(), Description: v.GetDescription()})
			}
		}
	}
	e.Message, e.FieldViolations, e.cause = s.Message(), violations, err
	return e
}

func failure(detail *pb.ProviderError) *Error {
	return &Error{
		Code: detail.GetCode(), Subreason: detail.GetSubreason(), Message: detail.GetMessage(),
		RetryAfter:      detail.GetRateLimit().GetRetryAfter().AsDuration(),
		FieldViolations: detail.GetFieldViolations(), Detail: detail,
	}
}

func typeUnaryErrors(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return typed(invoke(ctx, method, request, reply, conn, options...))
}

func typeStreamErrors(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	return typedStream{stream}, typed(err)
}

type typedStream struct{ grpc.ClientStream }

func (s typedStream) RecvMsg(message any) error { return typed(s.ClientStream.RecvMsg(message)) }
