package dev.headrace;

import dev.headrace.v1.GenerateRequest;
import dev.headrace.v1.GenerationEvent;
import dev.headrace.v1.GenerationServiceGrpc.GenerationServiceStub;
import dev.headrace.v1.StreamGenerateRequest;
import dev.headrace.v1.StreamGenerateResponse;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Runs generations over one stream. It may be used by several threads. When the stream is lost, another is opened, and those generations go
 * on that outlive a connection, by DISCONNECT_POLICY_KEEP or _DRAIN; the others end with an exception.
 */
public final class Session implements AutoCloseable {
    /** A stream that is lost is opened again so many times in a row, after waits that begin with RECONNECT_MILLIS and double. */
    private static final int RECONNECTS = 8;
    private static final long RECONNECT_MILLIS = 50;

    private final GenerationServiceStub stub;
    private final boolean isForOne;
    private final Context context = Context.current(); // that of the caller, for the streams that are opened later too
    private final Map<String, Generation> running = new HashMap<>();
    private ClientCallStreamObserver<StreamGenerateRequest> commands; // null where no stream is open
    private boolean isReconnecting;
    private boolean isClosed;
    private boolean wasLeft; // whether a reader has gone before its generation ended
    private int tries;

    Session(GenerationServiceStub stub, boolean isForOne) {
        this.stub = stub;
        this.isForOne = isForOne;
    }

    /** Begins a generation. One without a request id gets one; with the id of one that runs in this session, it is that one. */
    public synchronized Generation start(GenerateRequest request) {
        if (isClosed) {
            throw new IllegalStateException("the session is closed");
        }
        var id = request.getRequestId().isEmpty() ? UUID.randomUUID().toString() : request.getRequestId();
        if (running.containsKey(id)) {
            return running.get(id);
        }
        var generation = new Generation(request.toBuilder().setRequestId(id).build(), this);
        running.put(id, generation);
        if (commands != null) {
            generation.commands().forEach(this::send);
        } else if (!isReconnecting) {
            open();
        }
        return generation;
    }

    /** Ends the session. What still runs loses its reader. */
    @Override
    public synchronized void close() {
        isClosed = true;
        var stream = commands;
        commands = null;
        if (stream != null && running.isEmpty() && !wasLeft) {
            stream.onCompleted(); // the server ends the stream in good order
        } else {
            end(HeadraceException.of(Status.CANCELLED, "the session was closed"), false);
            if (stream != null) {
                stream.cancel("the session was closed", null);
            }
        }
    }

    synchronized void cancel(Generation generation) {
        if (running.containsValue(generation)) {
            generation.isCancelled = true; // where no stream is open, the next one begins with it
            send(generation.cancelCommand());
        }
    }

    synchronized void leave(Generation generation) {
        if (running.remove(generation.request().getRequestId(), generation)) {
            wasLeft = true;
            if (!generation.outlivesConnection()) {
                send(generation.cancelCommand());
            }
            generation.end(HeadraceException.of(Status.CANCELLED, "the generation was closed"));
        }
        if (isForOne) {
            close();
        }
    }

    private void send(StreamGenerateRequest command) {
        if (commands != null) {
            commands.onNext(command);
        }
    }

    private synchronized void open() {
        isReconnecting = false;
        if (running.isEmpty()) {
            tries = 0;
            return;
        }
        stub.streamGenerate(new Reader());
        for (var generation : List.copyOf(running.values())) {
            generation.commands().forEach(this::send);
        }
    }

    private synchronized void handOut(List<GenerationEvent> events) {
        tries = 0;
        for (var event : events) {
            var generation = running.get(event.getRequestId());
            if (generation != null && generation.take(event)) {
                running.remove(event.getRequestId());
            }
        }
        if (isForOne && running.isEmpty() && !isClosed) {
            close();
        }
    }

    private synchronized void lose(HeadraceException error) {
        commands = null;
        end(error, !isClosed && tries < RECONNECTS && error.isLost());
        if (!running.isEmpty()) {
            isReconnecting = true;
            var delay = RECONNECT_MILLIS << tries++;
            var deadline = stub.getCallOptions().getDeadline();
            if (deadline != null) {
                delay = Math.min(delay, deadline.timeRemaining(TimeUnit.MILLISECONDS));
            }
            CompletableFuture.delayedExecutor(delay, TimeUnit.MILLISECONDS).execute(context.wrap(this::open));
        }
    }

    /** Ends the generations, or, where a stream comes again, those that ended with the last one. */
    private void end(HeadraceException error, boolean again) {
        running.values().removeIf(generation -> {
            var goesOn = again && generation.outlivesConnection();
            if (!goesOn) {
                generation.end(error);
            }
            return !goesOn;
        });
    }

    private final class Reader implements ClientResponseObserver<StreamGenerateRequest, StreamGenerateResponse> {
        @Override
        public void beforeStart(ClientCallStreamObserver<StreamGenerateRequest> stream) {
            commands = stream;
        }

        @Override
        public void onNext(StreamGenerateResponse response) {
            handOut(response.getEventsList());
        }

        @Override
        public void onError(Throwable failure) {
            lose(HeadraceException.of(failure));
        }

        @Override
        public void onCompleted() {
            lose(HeadraceException.of(Status.UNAVAILABLE, "the stream ended before the generation did"));
        }
    }
}
