package dev.headrace.examples;

import dev.headrace.HeadraceClient;
import dev.headrace.HeadraceException;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;

/** Streams one answer from a Headrace that listens on localhost:50051, or where the first argument says. */
public final class Quickstart {
    public static void main(String[] arguments) {
        var target = arguments.length > 0 ? arguments[0] : "localhost:50051";
        var channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
        try (var client = new HeadraceClient(channel);
                var events = client.events(HeadraceClient.prompt("What does a river do?").build())) {
            events.text().forEach(text -> {
                System.out.print(text);
                System.out.flush();
            });
            System.out.println();
        } catch (HeadraceException error) {
            System.err.println(error.code() + ": " + error.getMessage());
            error.retryAfter().ifPresent(delay -> System.err.println("retry after " + delay));
            System.exit(1);
        }
    }
}
