package dev.headrace;

import dev.headrace.v1.*;
import io.grpc.ManagedChannel;
import java.time.Duration;

/** A connection with the stubs on it. What the stubs throw, HeadraceException.of gives a type. */
public final class HeadraceClient implements AutoCloseable {
    private final ManagedChannel channel;

    /** The client closes the channel with itself. */
    public HeadraceClient(ManagedChannel channel) { this.channel = channel; }

    /** The beginnings of a request, of one message of the user. */
    public static GenerateRequest.Builder prompt(String text) {
        var message = ChatMessage.newBuilder().setRole(MessageRole.MESSAGE_ROLE_USER).addContent(ContentPart.newBuilder().setText(text));
        return GenerateRequest.newBuilder().addMessages(message);
    }

    /** Runs one generation or many over one stream, from now on. */
    public Events events(GenerateRequest... requests) { return new Events(GenerationServiceGrpc.newStub(channel), requests); }

    /** Runs one generation or many over one stream. Together they may take so long, from now on; reading longer throws. */
    public Events events(Duration timeout, GenerateRequest... requests) {
        return new Events(GenerationServiceGrpc.newStub(channel).withDeadlineAfter(timeout), requests);
    }

    /** The stub of GenerationService. The other services, and other kinds of stubs, are made with the channel alike. */
    public GenerationServiceGrpc.GenerationServiceBlockingStub generation() { return GenerationServiceGrpc.newBlockingStub(channel); }

    /** The stub of RequestService. */
    public RequestServiceGrpc.RequestServiceBlockingStub request() { return RequestServiceGrpc.newBlockingStub(channel); }

    /** Closes the connection. It cancels nothing: what runs is to be closed before it. */
    @Override public void close() { channel.shutdownNow(); }
}
