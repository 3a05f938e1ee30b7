package dev.headrace;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.headrace.v1.CancelRequestRequest;
import dev.headrace.v1.CancelRequestResponse;
import dev.headrace.v1.Discontinuity;
import dev.headrace.v1.DisconnectPolicy;
import dev.headrace.v1.ErrorCode;
import dev.headrace.v1.GenerateRequest;
import dev.headrace.v1.GenerationEvent;
import dev.headrace.v1.GenerationResult;
import dev.headrace.v1.GenerationServiceGrpc.GenerationServiceImplBase;
import dev.headrace.v1.ProviderError;
import dev.headrace.v1.RequestServiceGrpc.RequestServiceImplBase;
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
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The helper against a server that plays scripted streams, and answers requests to cancel. */
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
    private final Deque<Status> cancels = new ArrayDeque<>();
    private Server server;
    private HeadraceClient client;

    private static final class Scripted extends GenerationServiceImplBase {
        final Deque<Script> scripts = new ArrayDeque<>();
        /** What the server sees of its client: commands, requests to cancel, and "half-close". */
        final BlockingQueue<Object> seen = new LinkedBlockingQueue<>();
        /** The last stream that was opened. */
        private volatile StreamObserver<StreamGenerateResponse> stream;

        @Override
        public StreamObserver<StreamGenerateRequest> streamGenerate(StreamObserver<StreamGenerateResponse> responses) {
            var script = scripts.remove();
            stream = responses;
            return new StreamObserver<>() {
                private boolean isBegun;

                @Override
                public void onNext(StreamGenerateRequest request) {
                    seen.add(request);
                    if (isBegun) {
                        return;
                    }
                    isBegun = true;
                    var id = request.hasResume() ? request.getResume().getRequestId() : request.getGenerate().getRequestId();
                    script.events().forEach(event -> tell(id, event));
                    switch (script.end()) {
                        case OK -> responses.onCompleted();
                        case LOST -> lose();
                        case STAYS -> {}
                    }
                }

                @Override
                public void onError(Throwable failure) {}

                @Override
                public void onCompleted() {
                    seen.add("half-close");
                    if (script.end() == End.STAYS) {
                        responses.onCompleted();
                    }
                }
            };
        }

        void tell(String id, GenerationEvent.Builder event) {
            stream.onNext(StreamGenerateResponse.newBuilder().addEvents(event.setRequestId(id)).build());
        }

        void lose() {
            stream.onError(Status.UNAVAILABLE.withDescription("gone").asRuntimeException());
        }

        StreamGenerateRequest command() throws InterruptedException {
            return (StreamGenerateRequest) next();
        }

        String cancelled() throws InterruptedException {
            return ((CancelRequestRequest) next()).getRequestId();
        }

        Object next() throws InterruptedException {
            var next = seen.poll(10, TimeUnit.SECONDS);
            assertNotNull(next, "nothing comes");
            return next;
        }
    }

    /** Answers requests to cancel as `cancels` says, and then by ending the generation. */
    private final class Requests extends RequestServiceImplBase {
        @Override
        public void cancelRequest(CancelRequestRequest request, StreamObserver<CancelRequestResponse> response) {
            service.seen.add(request);
            if (!cancels.isEmpty()) {
                response.onError(cancels.remove().asRuntimeException());
                return;
            }
            service.tell(request.getRequestId(), failed(ErrorCode.ERROR_CODE_CANCELLED));
            response.onNext(CancelRequestResponse.getDefaultInstance());
            response.onCompleted();
        }
    }

    private void serve(Script... scripts) throws IOException {
        service.scripts.addAll(List.of(scripts));
        var builder = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create());
        server = builder.addService(service).addService(new Requests()).build().start();
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

    private static GenerationEvent.Builder failed(ErrorCode code) {
        return GenerationEvent.newBuilder().setFailed(ProviderError.newBuilder().setCode(code).setMessage("no"));
    }

    private static GenerateRequest hello() {
        return HeadraceClient.prompt("Hello").build();
    }

    private static GenerateRequest ending() {
        return HeadraceClient.prompt("Hello").setOnDisconnect(DisconnectPolicy.DISCONNECT_POLICY_CANCEL).build();
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
                Script.of(End.OK, streaming, chunk(1, "b"), chunk(2, "c"), completed()));
        var told = new ArrayList<String>();
        read(client.stream(hello()), told);
        assertEquals(List.of("VALIDATING", "STREAMING", "a", "b", "c", "completed"), told);
        var first = service.command();
        assertFalse(first.getGenerate().getRequestId().isEmpty());
        assertEquals(DisconnectPolicy.DISCONNECT_POLICY_KEEP, first.getGenerate().getOnDisconnect());
        assertEquals(first, service.command(), "before the first chunk the same request is sent again");
        assertEquals(2, service.command().getResume().getNextIndex());
    }

    @Test
    void each_generation_goes_on_when_the_stream_of_a_session_is_lost() throws Exception {
        serve(Script.of(End.STAYS), Script.of(End.STAYS));
        var session = client.session(null);
        var one = session.start(hello());
        var other = session.start(hello());
        service.command();
        service.command();
        service.tell(one.request().getRequestId(), chunk(0, "a"));
        service.lose();
        assertEquals("a", one.text().iterator().next());
        var rest = CompletableFuture.supplyAsync(() -> one.text().toList());
        assertEquals(1, service.command().getResume().getNextIndex());
        var all = CompletableFuture.supplyAsync(() -> other.text().toList());
        assertEquals(other.request(), service.command().getGenerate());
        for (var event : List.of(chunk(0, "A"), completed())) {
            service.tell(other.request().getRequestId(), event);
        }
        for (var event : List.of(chunk(1, "b"), completed())) {
            service.tell(one.request().getRequestId(), event);
        }
        assertEquals(List.of("b"), rest.get());
        assertEquals(List.of("A"), all.get());
    }

    @Test
    void a_lost_stream_is_an_exception_when_the_generation_ends_with_it() throws Exception {
        serve(Script.of(End.LOST, chunk(0, "a")));
        var generation = client.stream(ending());
        var failure = failureOf(generation, "a");
        assertEquals(ErrorCode.ERROR_CODE_NETWORK_ERROR, failure.code());
        assertTrue(failure.detail().isEmpty());
        assertEquals(Status.Code.UNAVAILABLE, ((StatusRuntimeException) failure.getCause()).getStatus().getCode());
        assertThrows(IllegalStateException.class, () -> generation.text().toList(), "what failed is not complete when it is read again");
    }

    @Test
    void a_stream_without_an_end_is_an_exception_when_the_status_is_ok() throws Exception {
        serve(Script.of(End.OK, chunk(0, "a")));
        assertEquals(ErrorCode.ERROR_CODE_NETWORK_ERROR, failureOf(client.stream(ending()), "a").code());
    }

    @Test
    void the_others_go_on_when_one_generation_of_a_session_fails() throws Exception {
        serve(Script.of(End.STAYS));
        var session = client.session(null);
        var one = session.start(hello());
        var other = session.start(hello());
        service.command();
        service.command();
        service.tell(one.request().getRequestId(), failed(ErrorCode.ERROR_CODE_SERVER_ERROR));
        var failure = failureOf(one);
        assertEquals(ErrorCode.ERROR_CODE_SERVER_ERROR, failure.code());
        assertEquals("no", failure.getMessage());
        service.tell(other.request().getRequestId(), completed());
        assertEquals(List.of(), other.text().toList());
    }

    @Test
    void the_server_learns_of_it_when_a_generation_is_closed() throws Exception {
        serve(Script.of(End.STAYS, chunk(0, "a")));
        cancels.addAll(List.of(Status.NOT_FOUND, Status.UNAVAILABLE));
        var generation = client.stream(hello());
        assertEquals("a", generation.text().iterator().next());
        service.command();
        generation.close();
        for (int i = 0; i < 3; i++) { // where it is not known yet, and where the connection is lost, once more
            assertEquals(generation.request().getRequestId(), service.cancelled());
        }
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(generation).code());
        assertEquals("half-close", service.next());
        generation.close();
        assertTrue(service.seen.isEmpty(), "it has ended");
    }

    @Test
    void closing_is_an_exception_when_the_server_does_not_cancel() throws Exception {
        serve(Script.of(End.STAYS));
        cancels.add(Status.INTERNAL);
        assertEquals(ErrorCode.ERROR_CODE_UNKNOWN_ERROR, assertThrows(HeadraceException.class, client.stream(hello())::close).code());
    }

    @Test
    void the_stream_ends_in_good_order_when_its_only_generation_has_ended() throws Exception {
        serve(Script.of(End.STAYS, chunk(0, "a"), completed()));
        assertEquals(List.of("a"), client.stream(hello()).text().toList());
        service.command();
        assertEquals("half-close", service.next());
    }

    @Test
    void a_further_stream_is_opened_when_a_session_had_nothing_to_do() throws Exception {
        serve(Script.of(End.STAYS, completed()), Script.of(End.STAYS, chunk(0, "a"), completed()));
        try (var session = client.session(null)) {
            assertEquals(List.of(), session.start(hello()).text().toList());
            assertEquals(List.of("a"), session.start(hello()).text().toList());
        }
    }

    @Test
    void it_is_the_same_generation_when_its_id_is_started_again() throws Exception {
        serve(Script.of(End.STAYS));
        var session = client.session(null);
        var generation = session.start(hello());
        assertSame(generation, session.start(generation.request()));
        service.command();
        service.tell(generation.request().getRequestId(), completed());
        assertEquals(List.of(), generation.text().toList());
        assertEquals("half-close", service.next(), "nothing else was sent");
    }

    @Test
    void its_generations_are_cancelled_when_a_session_is_closed() throws Exception {
        serve(Script.of(End.STAYS));
        Generation generation;
        try (var session = client.session(null)) {
            generation = session.start(hello());
            service.command();
        }
        assertEquals(generation.request().getRequestId(), service.cancelled());
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(generation).code());
    }

    @Test
    void the_deadline_ends_reconnecting_when_nobody_listens() {
        try (var nobody = clientOf(1)) {
            assertEquals(ErrorCode.ERROR_CODE_TIMEOUT, failureOf(nobody.stream(hello(), Duration.ofMillis(120))).code());
        }
    }

    @Test
    void reconnecting_goes_on_when_streams_fail_while_they_are_opened() {
        var channel = Grpc.newChannelBuilder("127.0.0.1:1", InsecureChannelCredentials.create()).directExecutor().build();
        try (var nobody = new HeadraceClient(channel)) {
            assertEquals(ErrorCode.ERROR_CODE_TIMEOUT, failureOf(nobody.stream(hello(), Duration.ofMillis(120))).code());
        }
    }

    @Test
    void the_stream_ends_in_good_order_when_another_generation_of_the_session_was_given_up() throws Exception {
        serve(Script.of(End.LOST), Script.of(End.STAYS, completed()));
        var session = client.session(null);
        failureOf(session.start(ending()));
        assertEquals(List.of(), session.start(hello()).text().toList());
        service.command();
        service.command();
        assertEquals("half-close", service.next());
    }

    @Test
    void a_missing_chunk_is_an_exception() throws Exception {
        serve(Script.of(End.OK, chunk(0, "a"), chunk(2, "c"), completed()));
        assertTrue(failureOf(client.stream(hello()), "a").getMessage().contains("chunk 1 is missing"));
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
    void an_interrupted_reader_stops_waiting_and_cancels() throws Exception {
        serve(Script.of(End.STAYS));
        try (var generation = client.stream(hello())) {
            service.command();
            Thread.currentThread().interrupt();
            assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(generation).code());
        }
        assertTrue(Thread.interrupted(), "the thread stays interrupted");
        assertFalse(service.cancelled().isEmpty());
    }
}
