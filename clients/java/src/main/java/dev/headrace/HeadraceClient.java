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

    /** Runs one generation on a stream of its own. */
    public Generation stream(GenerateRequest request) { return stream(request, null); }

    /** Runs one generation on a stream of its own, which may take so long; reading it longer throws. Null: no limit. */
    public Generation stream(GenerateRequest request, Duration timeout) { return session(timeout).start(request); }

    /** A session, whose generations together may take so long, from now on. Null: no limit. */
    public Session session(Duration timeout) {
        var stub = GenerationServiceGrpc.newStub(channel);
        return new Session(timeout == null ? stub : stub.withDeadlineAfter(timeout));
    }

    /** The stub of GenerationService. The other services, and other kinds of stubs, are made with the channel alike. */
    public GenerationServiceGrpc.GenerationServiceBlockingStub generation() { return GenerationServiceGrpc.newBlockingStub(channel); }

    /** The stub of RequestService. */
    public RequestServiceGrpc.RequestServiceBlockingStub request() { return RequestServiceGrpc.newBlockingStub(channel); }

    /** Closes the connection. It cancels nothing: generations and sessions are to be closed before it. */
    @Override public void close() { channel.shutdownNow(); }
}
