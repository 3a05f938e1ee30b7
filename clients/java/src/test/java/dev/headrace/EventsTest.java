package dev.headrace;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
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
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The helper against a server that plays scripted streams, and answers requests to cancel. */
@Timeout(20)
class EventsTest {
    private enum End { OK, LOST, REFUSED, STAYS }

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
        /** What the server sees of its client: commands, requests to cancel, "half-close" on a stream that stays, and "left". */
        final BlockingQueue<Object> seen = new LinkedBlockingQueue<>();
        /** The last stream that was opened. */
        private volatile StreamObserver<StreamGenerateResponse> stream;

        @Override
        public StreamObserver<StreamGenerateRequest> streamGenerate(StreamObserver<StreamGenerateResponse> responses) {
            var script = scripts.remove();
            stream = responses;
            ((ServerCallStreamObserver<StreamGenerateResponse>) responses).setOnCancelHandler(() -> seen.add("left"));
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
                        case REFUSED -> responses.onError(Status.PERMISSION_DENIED.asRuntimeException());
                        case STAYS -> {}
                    }
                }

                @Override
                public void onError(Throwable failure) {}

                @Override
                public void onCompleted() {
                    if (script.end() == End.STAYS) {
                        seen.add("half-close");
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

    private static String idOf(Events events, int number) {
        return events.requests().get(number).getRequestId();
    }

    /** Reads what is told, in words. */
    private static void read(Events events, List<String> told) {
        for (var event : events) {
            told.add(switch (event.getEventCase()) {
                case TRANSITION -> event.getTransition().getToState().name().replace("REQUEST_STATE_", "");
                case CHUNK -> event.getChunk().getText();
                default -> event.getEventCase().name().toLowerCase();
            });
        }
    }

    private static HeadraceException failureOf(Events events, String... expected) {
        var told = new ArrayList<String>();
        var failure = assertThrows(HeadraceException.class, () -> read(events, told));
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
        read(client.events(hello()), told);
        assertEquals(List.of("VALIDATING", "STREAMING", "a", "b", "c", "completed"), told);
        var first = service.command();
        assertFalse(first.getGenerate().getRequestId().isEmpty());
        assertEquals(DisconnectPolicy.DISCONNECT_POLICY_KEEP, first.getGenerate().getOnDisconnect());
        assertEquals(first, service.command(), "before the first chunk the same request is sent again");
        assertEquals(2, service.command().getResume().getNextIndex());
    }

    @Test
    void only_what_still_runs_goes_on_when_the_stream_is_lost() throws Exception {
        serve(Script.of(End.STAYS), Script.of(End.STAYS));
        var events = client.events(hello(), hello(), hello());
        for (var request : events.requests()) {
            assertEquals(request, service.command().getGenerate(), "they begin in their order");
        }
        assertEquals("half-close", service.next());
        service.tell(idOf(events, 0), chunk(0, "a"));
        service.tell(idOf(events, 1), completed());
        service.lose();
        var told = new ArrayList<String>();
        var reading = CompletableFuture.runAsync(() -> read(events, told));
        var resume = service.command().getResume();
        assertEquals(idOf(events, 0), resume.getRequestId());
        assertEquals(1, resume.getNextIndex());
        assertEquals(events.requests().get(2), service.command().getGenerate());
        assertEquals("half-close", service.next());
        service.tell(idOf(events, 2), chunk(0, "A"));
        service.tell(idOf(events, 0), chunk(1, "b"));
        service.tell(idOf(events, 0), completed());
        service.tell(idOf(events, 2), completed());
        reading.get();
        assertEquals(List.of("a", "completed", "A", "b", "completed", "completed"), told);
        assertTrue(service.seen.isEmpty(), "nothing is cancelled after its end");
    }

    @Test
    void a_lost_stream_is_an_exception_when_the_server_has_ended_the_generation() throws Exception {
        serve(Script.of(End.LOST, chunk(0, "a")), Script.of(End.OK, failed(ErrorCode.ERROR_CODE_CANCELLED)));
        var events = client.events(hello().toBuilder().setOnDisconnect(DisconnectPolicy.DISCONNECT_POLICY_CANCEL).build());
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(events, "a", "failed").code());
        assertEquals(DisconnectPolicy.DISCONNECT_POLICY_CANCEL, service.command().getGenerate().getOnDisconnect());
        assertThrows(IllegalStateException.class, () -> events.text().toList(), "what failed is not complete when it is read again");
    }

    @Test
    void it_goes_on_when_a_stream_ends_with_ok_before_the_generation() throws Exception {
        serve(Script.of(End.OK, chunk(0, "a")), Script.of(End.OK, chunk(1, "b"), completed()));
        assertEquals(List.of("a", "b"), client.events(hello()).text().toList());
    }

    @Test
    void a_refused_stream_is_an_exception_at_once() throws Exception {
        serve(Script.of(End.REFUSED));
        var failure = failureOf(client.events(hello()));
        assertEquals(ErrorCode.ERROR_CODE_UNKNOWN_ERROR, failure.code());
        assertEquals(Status.Code.PERMISSION_DENIED, Status.fromThrowable(failure.getCause()).getCode());
        assertTrue(failure.detail().isEmpty());
    }

    @Test
    void a_lost_connection_is_a_network_error() {
        var failure = HeadraceException.of(Status.UNAVAILABLE.asRuntimeException());
        assertEquals(ErrorCode.ERROR_CODE_NETWORK_ERROR, failure.code());
        assertTrue(failure.detail().isEmpty());
    }

    @Test
    void the_others_go_on_when_one_generation_fails() throws Exception {
        serve(Script.of(End.STAYS));
        var events = client.events(hello(), hello(), hello());
        service.command();
        service.tell(idOf(events, 0), failed(ErrorCode.ERROR_CODE_SERVER_ERROR));
        service.tell(idOf(events, 1), failed(ErrorCode.ERROR_CODE_CONTENT_FILTER));
        service.tell(idOf(events, 2), chunk(0, "a"));
        service.tell(idOf(events, 2), completed());
        var failure = failureOf(events, "failed", "failed", "a", "completed");
        assertEquals(ErrorCode.ERROR_CODE_SERVER_ERROR, failure.code(), "the first one's");
        assertEquals("no", failure.getMessage());
    }

    @Test
    void what_fails_is_an_exception_when_only_its_text_is_read() throws Exception {
        serve(Script.of(End.OK, chunk(0, "a"), failed(ErrorCode.ERROR_CODE_SERVER_ERROR)));
        var told = new ArrayList<String>();
        assertThrows(HeadraceException.class, () -> client.events(hello()).text().forEach(told::add));
        assertEquals(List.of("a"), told);
    }

    @Test
    void the_server_learns_of_it_when_a_generation_is_left() throws Exception {
        serve(Script.of(End.STAYS, chunk(0, "a")));
        cancels.addAll(List.of(Status.NOT_FOUND, Status.UNAVAILABLE));
        var events = client.events(hello());
        assertEquals("a", events.text().iterator().next());
        service.command();
        assertEquals("half-close", service.next());
        events.close();
        for (int i = 0; i < 3; i++) { // where it is not known yet, and where the connection is lost, once more
            assertEquals(idOf(events, 0), service.cancelled());
        }
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(events, "failed").code());
        events.close();
        assertTrue(service.seen.isEmpty(), "it has ended");
    }

    @Test
    void all_that_run_are_cancelled_when_they_are_left() throws Exception {
        serve(Script.of(End.STAYS));
        var events = client.events(hello(), hello(), hello());
        for (var request : events.requests()) {
            assertEquals(request, service.command().getGenerate());
        }
        assertEquals("half-close", service.next());
        service.tell(idOf(events, 0), completed());
        assertTrue(events.iterator().next().hasCompleted());
        events.close();
        assertEquals(Set.of(idOf(events, 1), idOf(events, 2)), Set.of(service.cancelled(), service.cancelled()));
        assertTrue(service.seen.isEmpty(), "the first one has ended");
    }

    @Test
    void what_is_asked_for_with_drain_or_keep_runs_on_when_it_is_left() throws Exception {
        serve(Script.of(End.STAYS));
        var policies = List.of(
                DisconnectPolicy.DISCONNECT_POLICY_KEEP,
                DisconnectPolicy.DISCONNECT_POLICY_DRAIN,
                DisconnectPolicy.DISCONNECT_POLICY_CANCEL,
                DisconnectPolicy.DISCONNECT_POLICY_UNSPECIFIED);
        var asked = policies.stream().map(policy -> hello().toBuilder().setOnDisconnect(policy).build());
        var events = client.events(asked.toArray(GenerateRequest[]::new));
        for (var request : events.requests()) {
            assertEquals(request, service.command().getGenerate());
        }
        assertEquals("half-close", service.next());
        events.close();
        assertEquals(Set.of(idOf(events, 2), idOf(events, 3)), Set.of(service.cancelled(), service.cancelled()));
        assertEquals("left", service.next(), "nothing of what runs on is to come any more");
        assertTrue(service.seen.isEmpty(), "the others run on");
    }

    @Test
    void the_others_go_on_when_one_generation_is_cancelled() throws Exception {
        serve(Script.of(End.STAYS));
        var events = client.events(hello(), hello());
        service.command();
        service.command();
        events.cancel(idOf(events, 0).toUpperCase());
        service.tell(idOf(events, 1), completed());
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(events, "failed", "completed").code());
    }

    @Test
    void leaving_is_an_exception_when_the_server_does_not_cancel() throws Exception {
        serve(Script.of(End.STAYS));
        cancels.add(Status.INTERNAL);
        assertEquals(ErrorCode.ERROR_CODE_UNKNOWN_ERROR, assertThrows(HeadraceException.class, client.events(hello())::close).code());
    }

    @Test
    void an_id_is_sent_in_the_form_in_which_events_tell_it() throws Exception {
        serve(Script.of(End.STAYS, completed()));
        var id = UUID.randomUUID().toString();
        assertEquals(List.of(), client.events(hello().toBuilder().setRequestId(id.toUpperCase()).build()).text().toList());
        assertEquals(id, service.command().getGenerate().getRequestId());
    }

    @Test
    void nothing_is_sent_when_an_id_is_wrong_or_comes_twice() throws Exception {
        serve();
        var wrong = hello().toBuilder().setRequestId("mine").build();
        assertThrows(IllegalArgumentException.class, () -> client.events(wrong));
        var named = hello().toBuilder().setRequestId(UUID.randomUUID().toString()).build();
        assertThrows(IllegalArgumentException.class, () -> client.events(named, named));
        assertTrue(service.seen.isEmpty());
    }

    @Test
    void the_deadline_ends_reconnecting_when_nobody_listens() {
        try (var nobody = clientOf(1)) {
            assertEquals(ErrorCode.ERROR_CODE_TIMEOUT, failureOf(nobody.events(Duration.ofMillis(120), hello())).code());
        }
    }

    @Test
    void reconnecting_goes_on_when_streams_fail_while_they_are_opened() {
        var channel = Grpc.newChannelBuilder("127.0.0.1:1", InsecureChannelCredentials.create()).directExecutor().build();
        try (var nobody = new HeadraceClient(channel)) {
            assertEquals(ErrorCode.ERROR_CODE_TIMEOUT, failureOf(nobody.events(Duration.ofMillis(120), hello())).code());
        }
    }

    @Test
    void a_missing_chunk_is_an_exception() throws Exception {
        serve(Script.of(End.OK, chunk(0, "a"), chunk(2, "c"), completed()));
        assertTrue(failureOf(client.events(hello()), "a").getMessage().contains("chunk 1 is missing"));
    }

    @Test
    void text_is_an_exception_when_the_answer_starts_again() throws Exception {
        var again = GenerationEvent.newBuilder().setDiscontinuity(Discontinuity.getDefaultInstance());
        serve(Script.of(End.OK, chunk(0, "a"), again, chunk(1, "A"), completed()));
        var told = new ArrayList<String>();
        assertThrows(IllegalStateException.class, () -> client.events(hello()).text().forEach(told::add));
        assertEquals(List.of("a"), told);
    }

    @Test
    void an_interrupted_reader_stops_waiting_and_cancels() throws Exception {
        serve(Script.of(End.STAYS));
        try (var events = client.events(hello())) {
            service.command();
            assertEquals("half-close", service.next());
            Thread.currentThread().interrupt();
            assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failureOf(events).code());
        }
        assertTrue(Thread.interrupted(), "the thread stays interrupted");
        assertFalse(service.cancelled().isEmpty());
    }
}
