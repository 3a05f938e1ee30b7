package dev.headrace;

import com.google.common.collect.AbstractIterator;
import com.google.common.util.concurrent.Uninterruptibles;
import dev.headrace.v1.*;
import io.grpc.Status;
import io.grpc.stub.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

/**
 * Generations that run over one stream, and what they tell, for one reader. Iterating, once, gives their events as they come, each one's in
 * order, `completed` or `failed` last; the request id of an event says whose it is. When all have ended, it throws the HeadraceException of
 * the first that has failed. When the stream is lost, what still runs goes on over another.
 */
public final class Events implements Iterable<GenerationEvent>, AutoCloseable {
    private static final int TRIES = 16; // so often in a row another stream is opened, after pauses that double up to a second
    private static final long PAUSE_MILLIS = 50;
    private static final long CANCEL_SECONDS = 5;

    private final GenerationServiceGrpc.GenerationServiceStub stub;
    private final List<GenerateRequest> requests = new ArrayList<>();
    private final Map<String, Boolean> running = new ConcurrentHashMap<>(); // by id, until the last event is read; true: when left, too
    private final Map<String, Integer> chunkCounts = new HashMap<>(); // by id
    private final Set<GenerationEvent> told = new HashSet<>(); // all but chunks
    private HeadraceException failure; // of the first that has failed
    private BlockingQueue<Object> inbox; // what the stream has brought: events, and the exception that it ended with
    private ClientCallStreamObserver<StreamGenerateRequest> commands; // of that stream
    private int tries; // since the last news
    private final Iterator<GenerationEvent> iterator = new AbstractIterator<>() {
        @Override protected GenerationEvent computeNext() {
            try {
                while (!running.isEmpty()) {
                    var next = inbox.take();
                    if (next instanceof Throwable lost) {
                        goOn(lost);
                    } else if (next instanceof GenerationEvent event && isNews(event)) {
                        return event;
                    }
                }
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
                throw HeadraceException.of(Status.CANCELLED.withCause(interrupted).asRuntimeException());
            }
            if (failure != null) {
                throw failure;
            }
            return endOfData();
        }
    };

    Events(GenerationServiceGrpc.GenerationServiceStub stub, GenerateRequest... asked) {
        this.stub = stub;
        for (var one : asked) { // with an id, in the form in which events tell it; and with KEEP, so that it outlives a lost connection
            var id = (one.getRequestId().isEmpty() ? UUID.randomUUID() : UUID.fromString(one.getRequestId())).toString();
            int policy = one.getOnDisconnectValue() == 0 ? DisconnectPolicy.DISCONNECT_POLICY_KEEP_VALUE : one.getOnDisconnectValue();
            requests.add(one.toBuilder().setRequestId(id).setOnDisconnectValue(policy).build());
            if (running.put(id, one.getOnDisconnectValue() >= DisconnectPolicy.DISCONNECT_POLICY_DRAIN_VALUE) != null) {
                throw new IllegalArgumentException("two requests have the same id");
            }
        }
        open();
    }

    /** The requests as they were sent, with their ids. */
    public List<GenerateRequest> requests() { return Collections.unmodifiableList(requests); }

    @Override public Iterator<GenerationEvent> iterator() { return iterator; }

    /** The text of one generation, piece by piece. An answer that starts again (MID_STREAM_FALLBACK_RESTART) is an exception here. */
    public Stream<String> text() {
        return StreamSupport.stream(spliterator(), false).mapMulti((event, next) -> {
            if (event.hasDiscontinuity()) {
                throw new IllegalStateException("the answer starts again, which its text alone cannot show: read the events");
            } else if (event.getChunk().hasText()) {
                next.accept(event.getChunk().getText());
            }
        });
    }

    /** Ends one of them where it still runs, from any thread, and returns when that is on record; throws a HeadraceException if not. */
    public void cancel(String requestId) {
        var service = RequestServiceGrpc.newFutureStub(stub.getChannel()).withDeadlineAfter(CANCEL_SECONDS, TimeUnit.SECONDS);
        var id = UUID.fromString(requestId).toString();
        while (running.containsKey(id)) {
            try {
                Uninterruptibles.getUninterruptibly(service.cancelRequest(CancelRequestRequest.newBuilder().setRequestId(id).build()));
                return;
            } catch (ExecutionException failed) {
                switch (Status.fromThrowable(failed).getCode()) { // the request is on its way, or the connection is lost
                    case NOT_FOUND, UNAVAILABLE -> Uninterruptibles.sleepUninterruptibly(PAUSE_MILLIS, TimeUnit.MILLISECONDS);
                    default -> throw HeadraceException.of(failed.getCause());
                }
            }
        }
    }

    /** Cancels what still runs and was not asked for with on_disconnect DRAIN or KEEP, one after the other, until cancelling one throws. */
    @Override public void close() {
        running.keySet().stream().filter(id -> !running.getOrDefault(id, true)).forEach(this::cancel);
        if (running.containsValue(true)) {
            commands.cancel("nobody reads on", null);
        }
    }

    /** Begins what runs on a new stream, or goes on there. */
    private void open() {
        var received = new LinkedBlockingQueue<>();
        inbox = received;
        commands = (ClientCallStreamObserver<StreamGenerateRequest>) stub.streamGenerate(new StreamObserver<>() {
            @Override public void onNext(StreamGenerateResponse response) { received.addAll(response.getEventsList()); }

            @Override public void onError(Throwable lost) { received.add(lost); }

            @Override public void onCompleted() {
                onError(Status.UNAVAILABLE.withDescription("the stream ended early").asRuntimeException());
            }
        });
        requests.stream().filter(request -> running.containsKey(request.getRequestId())).map(this::command).forEach(commands::onNext);
        commands.onCompleted();
    }

    private StreamGenerateRequest command(GenerateRequest request) {
        int nextIndex = chunkCounts.getOrDefault(request.getRequestId(), 0);
        var rest = ResumeCommand.newBuilder().setRequestId(request.getRequestId()).setNextIndex(nextIndex);
        var command = StreamGenerateRequest.newBuilder(); // before the first chunk the server may not know it yet; if it does, it goes on
        return (nextIndex == 0 ? command.setGenerate(request) : command.setResume(rest)).build();
    }

    /** Takes note of an event; false where it was told before. */
    private boolean isNews(GenerationEvent event) {
        var id = event.getRequestId();
        int due = chunkCounts.getOrDefault(id, 0), index = event.getChunk().getIndex();
        if (event.hasChunk() && index > due) {
            throw HeadraceException.of(Status.DATA_LOSS.withDescription("chunk %d is missing".formatted(due)).asRuntimeException());
        } else if (event.hasChunk() ? index < due : !told.add(event)) {
            return false;
        }
        tries = 0;
        if (event.hasChunk()) {
            chunkCounts.put(id, due + 1);
        } else if (event.hasFailed() && failure == null) {
            failure = new HeadraceException(event.getFailed(), null);
        }
        if (event.hasCompleted() || event.hasFailed()) {
            running.remove(id);
        }
        return true;
    }

    private void goOn(Throwable lost) throws InterruptedException {
        // INTERNAL is how some proxies end a stream
        if (tries == TRIES || !Set.of(Status.Code.UNAVAILABLE, Status.Code.INTERNAL).contains(Status.fromThrowable(lost).getCode())) {
            throw HeadraceException.of(lost);
        }
        Thread.sleep(Math.min(1000, PAUSE_MILLIS << tries++));
        open();
    }
}
