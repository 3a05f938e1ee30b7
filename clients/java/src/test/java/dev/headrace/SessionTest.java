package dev.headrace;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.headrace.v1.Discontinuity;
import dev.headrace.v1.DisconnectPolicy;
import dev.headrace.v1.ErrorCode;
import dev.headrace.v1.GenerateRequest;
import dev.headrace.v1.GenerationEvent;
import dev.headrace.v1.GenerationResult;
import dev.headrace.v1.GenerationServiceGrpc.GenerationServiceImplBase;
import dev.headrace.v1.ProviderError;
import dev.headrace.v1.RequestState;
import dev.headrace.v1.StateTransition;
import dev.headrace.v1.StreamChunk;
import dev.headrace.v1.StreamGenerateRequest;
import dev.headrace.v1.StreamGenerateResponse;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The helper against a server that plays scripted streams. */
@Timeout(20)
class SessionTest {
    private enum End { OK, LOST, STAYS }

    /** What the server does on one stream: it tells events of the generation that the first command is about, and ends, or stays. */
    private record Script(End end, List<GenerationEvent.Builder> events) {
        static Script of(End end, GenerationEvent.Builder... events) {
            return new Script(end, List.of(events));
        }
    }

    private final Scripted service = new Scripted();
    private Server server;
    private HeadraceClient client;

    private static final class Scripted extends GenerationServiceImplBase {
        final Deque<Script> scripts = new ArrayDeque<>();
        /** What the server sees of its client: commands, "half-close" and "gone". */
        final BlockingQueue<Object> seen = new LinkedBlockingQueue<>();

        @Override
        public StreamObserver<StreamGenerateRequest> streamGenerate(StreamObserver<StreamGenerateResponse> responses) {
            return new StreamObserver<>() {
                private Script script;

                @Override
                public void onNext(StreamGenerateRequest request) {
                    seen.add(request);
                    if (script != null) {
                        return;
                    }
                    script = scripts.remove();
                    var id = request.hasResume() ? request.getResume().getRequestId() : request.getGenerate().getRequestId();
                    for (var event : script.events()) {
                        responses.onNext(StreamGenerateResponse.newBuilder().addEvents(event.setRequestId(id)).build());
                    }
                    switch (script.end()) {
                        case OK -> responses.onCompleted();
                        case LOST -> responses.onError(Status.UNAVAILABLE.withDescription("gone").asRuntimeException());
                        case STAYS -> {}
                    }
                }

                @Override
                public void onError(Throwable failure) {
                    seen.add("gone");
                }

                @Override
                public void onCompleted() {
                    seen.add("half-close");
                    if (script.end() == End.STAYS) {
                        responses.onCompleted();
                    }
                }
            };
        }

        StreamGenerateRequest command() throws InterruptedException {
            return (StreamGenerateRequest) next();
        }

        Object next() throws InterruptedException {
            var next = seen.poll(10, TimeUnit.SECONDS);
            assertNotNull(next, "nothing comes");
            return next;
        }
    }

    private void serve(Script... scripts) throws IOException {
        service.scripts.addAll(List.of(scripts));
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create()).addService(service).build().start();
        client = clientOf(server.getPort());
    }

    private static HeadraceClient clientOf(int port) {
        return new HeadraceClient(Grpc.newChannelBuilder("127.0.0.1:" + port, InsecureChannelCredentials.create()).build());
    }

    @AfterEach
    void stop() {
        if (server != null) {
            client.close();
            server.shutdownNow();
        }
    }

    private static GenerationEvent.Builder transition(RequestState state) {
        return GenerationEvent.newBuilder().setTransition(StateTransition.newBuilder().setToState(state));
    }

    private static GenerationEvent.Builder chunk(int index, String text) {
        return GenerationEvent.newBuilder().setChunk(StreamChunk.newBuilder().setIndex(index).setText(text));
    }

    private static GenerationEvent.Builder completed() {
        return GenerationEvent.newBuilder().setCompleted(GenerationResult.getDefaultInstance());
    }

    private static GenerateRequest kept() {
        return HeadraceClient.prompt("Hello").setOnDisconnect(DisconnectPolicy.DISCONNECT_POLICY_KEEP).build();
    }

    private static GenerateRequest hello() {
        return HeadraceClient.prompt("Hello").build();
    }

    /** Reads what a generation tells, in words. */
    private static void read(Generation generation, List<String> told) {
        for (var event : generation) {
            told.add(switch (event.getEventCase()) {
                case TRANSITION -> event.getTransition().getToState().name().replace("REQUEST_STATE_", "");
                case CHUNK -> event.getChunk().getText();
                default -> event.getEventCase().name().toLowerCase();
            });
        }
    }

    private static HeadraceException failureOf(Generation generation, String... expected) {
        var told = new ArrayList<String>();
        var failure = assertThrows(HeadraceException.class, () -> read(generation, told));
        assertEquals(List.of(expected), told);
        return failure;
    }

    @Test
    void nothing_is_told_twice_when_streams_are_lost() throws Exception {
        var validating = transition(RequestState.REQUEST_STATE_VALIDATING);
        var streaming = transition(RequestState.REQUEST_STATE_STREAMING);
        serve(
                Script.of(End.LOST, validating),
                Script.of(End.LOST, validating, streaming, chunk(0, "a"), chunk(1, "b")),
                Script.of(End.OK, chunk(2, "c"), completed()));
        var told = new ArrayList<String>();
        read(client.stream(kept()), told);
        assertEquals(List.of("VALIDATING", "STREAMING", "a", "b", "c", "completed"), told);
        var first = service.command();
        assertFalse(first.getGenerate().getRequestId().isEmpty());
        assertEquals(first, service.command(), "before the first chunk the same request is sent again");
        assertEquals(2, service.command().getResume().getNextIndex());
    }

    @Test
    void a_lost_stream_is_an_exception_when_the_generation_ends_with_it() throws Exception {
        serve(Script.of(End.LOST, chunk(0, "a")));
        var failure = failureOf(client.stream(hello()), "a");
        assertEquals(ErrorCode.ERROR_CODE_NETWORK_ERROR, failure.code());
        assertEquals(Status.Code.UNAVAILABLE, ((StatusRuntimeException) failure.getCause()).getStatus().getCode());
    }

    @Test
    void a_stream_without_an_end_is_an_exception_when_the_status_is_ok() throws Exception {
        serve(Script.of(End.OK, chunk(0, "a")));
        assertEquals(ErrorCode.ERROR_CODE_NETWORK_ERROR, failureOf(client.stream(hello()), "a").code());
    }

    @Test
    void one_generation_fails_and_the_next_one_starts_when_a_stream_goes_on() throws Exception {
        var failed = ProviderError.newBuilder().setCode(ErrorCode.ERROR_CODE_SERVER_ERROR).setSubreason("OVERLOADED").setMessage("no");
        serve(Script.of(End.STAYS, GenerationEvent.newBuilder().setFailed(failed)));
        try (var session = client.session()) {
            var failure = failureOf(session.start(kept()));
            assertEquals(ErrorCode.ERROR_CODE_SERVER_ERROR, failure.code());
            assertEquals("OVERLOADED no", failure.subreason() + " " + failure.getMessage());
            var next = session.start(hello());
            service.command();
            assertEquals(next.request(), service.command().getGenerate());
        }
    }

    @Test
    void the_server_learns_of_it_when_a_generation_is_closed() throws Exception {
        serve(Script.of(End.STAYS, chunk(0, "a")));
        try (var session = client.session()) {
            var generation = session.start(hello());
            assertEquals("a", generation.text().iterator().next());
            generation.close();
            service.command();
            assertEquals(generation.request().getRequestId(), service.command().getCancel().getRequestId());
            assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(generation).code());
        }
    }

    @Test
    void the_stream_is_cancelled_when_its_only_generation_is_closed() throws Exception {
        serve(Script.of(End.STAYS, chunk(0, "a")));
        try (var generation = client.stream(kept())) {
            assertEquals("a", generation.text().iterator().next());
        }
        service.command();
        assertEquals("gone", service.next(), "kept, it is not cancelled itself");
    }

    @Test
    void the_stream_ends_in_good_order_when_its_only_generation_has_ended() throws Exception {
        serve(Script.of(End.STAYS, chunk(0, "a"), completed()));
        assertEquals(List.of("a"), client.stream(hello()).text().toList());
        service.command();
        assertEquals("half-close", service.next());
    }

    @Test
    void it_is_the_same_generation_when_its_id_is_started_again() throws Exception {
        serve(Script.of(End.STAYS, chunk(0, "a"), completed()));
        try (var session = client.session()) {
            var generation = session.start(kept());
            assertSame(generation, session.start(generation.request()));
            assertEquals(List.of("a"), generation.text().toList());
        }
        service.command();
        assertEquals("half-close", service.next(), "nothing else was sent");
    }

    @Test
    void readers_end_when_the_session_is_closed() throws Exception {
        serve(Script.of(End.STAYS, chunk(0, "a")));
        var session = client.session();
        var generation = session.start(hello());
        session.close();
        assertThrows(IllegalStateException.class, () -> session.start(kept()));
        var failure = assertThrows(HeadraceException.class, () -> generation.text().toList());
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failure.code());
    }

    @Test
    void the_deadline_ends_reconnecting_when_nobody_listens() {
        try (var nobody = clientOf(1)) {
            assertEquals(ErrorCode.ERROR_CODE_TIMEOUT, failureOf(nobody.stream(kept(), Duration.ofMillis(120))).code());
        }
    }

    @Test
    void a_missing_chunk_is_an_exception() throws Exception {
        serve(Script.of(End.OK, chunk(0, "a"), chunk(2, "c"), completed()));
        assertTrue(failureOf(client.stream(hello()), "a").getMessage().contains("chunk 2"));
    }

    @Test
    void text_is_an_exception_when_the_answer_starts_again() throws Exception {
        var again = GenerationEvent.newBuilder().setDiscontinuity(Discontinuity.getDefaultInstance());
        serve(Script.of(End.OK, chunk(0, "a"), again, chunk(1, "A"), completed()));
        var told = new ArrayList<String>();
        assertThrows(IllegalStateException.class, () -> client.stream(hello()).text().forEach(told::add));
        assertEquals(List.of("a"), told);
    }

    @Test
    void an_interrupted_reader_stops_waiting() throws Exception {
        serve(Script.of(End.STAYS));
        try (var generation = client.stream(hello())) {
            Thread.currentThread().interrupt();
            assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(generation).code());
            assertTrue(Thread.interrupted(), "the thread stays interrupted");
        }
    }
}
