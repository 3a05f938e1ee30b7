// Streams one answer from a Headrace that listens on localhost:50051, or where the first argument says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"headrace.dev/go"
)

func main() {
	target := "localhost:50051"
	if len(os.Args) > 1 {
		target = os.Args[1]
	}
	client, err := headrace.New(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	for text, err := range headrace.Text(client.Events(context.Background(), headrace.Prompt("What does a river do?"))) {
		var failure *headrace.Error
		if errors.As(err, &failure) {
			fmt.Fprintln(os.Stderr, failure, "retry after", failure.RetryAfter)
			os.Exit(1)
		}
		fmt.Print(text)
	}
	fmt.Println()
}
