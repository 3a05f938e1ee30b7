package dev.headrace;

import dev.headrace.v1.AnalyticsServiceGrpc;
import dev.headrace.v1.AnalyticsServiceGrpc.AnalyticsServiceBlockingStub;
import dev.headrace.v1.ChatMessage;
import dev.headrace.v1.ContentPart;
import dev.headrace.v1.GenerateRequest;
import dev.headrace.v1.GenerationServiceGrpc;
import dev.headrace.v1.GenerationServiceGrpc.GenerationServiceBlockingStub;
import dev.headrace.v1.MessageRole;
import dev.headrace.v1.ProviderServiceGrpc;
import dev.headrace.v1.ProviderServiceGrpc.ProviderServiceBlockingStub;
import dev.headrace.v1.RequestServiceGrpc;
import dev.headrace.v1.RequestServiceGrpc.RequestServiceBlockingStub;
import io.grpc.ManagedChannel;
import java.time.Duration;

/** A connection with the stubs on it. What the stubs throw, HeadraceException.of gives a type. */
public final class HeadraceClient implements AutoCloseable {
    private final ManagedChannel channel;

    /** The client closes the channel with itself. */
    public HeadraceClient(ManagedChannel channel) {
        this.channel = channel;
    }

    /** The beginnings of a request, of one message of the user. */
    public static GenerateRequest.Builder prompt(String text) {
        var message = ChatMessage.newBuilder().setRole(MessageRole.MESSAGE_ROLE_USER).addContent(ContentPart.newBuilder().setText(text));
        return GenerateRequest.newBuilder().addMessages(message);
    }

    /** Runs one generation on a stream of its own. */
    public Generation stream(GenerateRequest request) {
        return new Session(GenerationServiceGrpc.newStub(channel), true).start(request);
    }

    /** Runs one generation on a stream of its own, which ends after so much time; the server knows it as the deadline. */
    public Generation stream(GenerateRequest request, Duration timeout) {
        return new Session(GenerationServiceGrpc.newStub(channel).withDeadlineAfter(timeout), true).start(request);
    }

    /** A session, whose stream is opened by its first generation. */
    public Session session() {
        return new Session(GenerationServiceGrpc.newStub(channel), false);
    }

    /** A session that ends after so much time; the server knows it as the deadline. */
    public Session session(Duration timeout) {
        return new Session(GenerationServiceGrpc.newStub(channel).withDeadlineAfter(timeout), false);
    }

    /** The stub of GenerationService. Of every service there are stubs of other kinds too, made with the channel. */
    public GenerationServiceBlockingStub generation() {
        return GenerationServiceGrpc.newBlockingStub(channel);
    }

    /** The stub of RequestService. */
    public RequestServiceBlockingStub request() {
        return RequestServiceGrpc.newBlockingStub(channel);
    }

    /** The stub of ProviderService. */
    public ProviderServiceBlockingStub provider() {
        return ProviderServiceGrpc.newBlockingStub(channel);
    }

    /** The stub of AnalyticsService. */
    public AnalyticsServiceBlockingStub analytics() {
        return AnalyticsServiceGrpc.newBlockingStub(channel);
    }

    /** Closes the connection, with all that runs on it. */
    @Override
    public void close() {
        channel.shutdownNow();
    }
}
