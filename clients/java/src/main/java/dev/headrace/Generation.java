package dev.headrace;

import com.google.common.collect.AbstractIterator;
import com.google.common.util.concurrent.Uninterruptibles;
import dev.headrace.v1.*;
import io.grpc.Status;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * One generation, for one reader. Iterating gives the events that have not been read yet, as they come, `completed` last; one that fails
 * throws a HeadraceException. When its stream is lost, it goes on over another, unless the request says DISCONNECT_POLICY_CANCEL.
 */
public final class Generation implements Iterable<GenerationEvent>, AutoCloseable {
    private static final int TRIES = 16; // so often in a row it goes on over another stream, after pauses that double up to a second
    private static final long PAUSE_MILLIS = 50;
    private static final long CANCEL_SECONDS = 5;

    final BlockingQueue<Object> inbox = new LinkedBlockingQueue<>(); // events, and the exceptions that streams ended with
    private final GenerateRequest request;
    private final Session session;
    private final Set<GenerationEvent> told = new HashSet<>(); // all but chunks
    private int nextIndex; // of chunks
    private int tries; // since the last news
    private boolean isComplete;
    private final Iterator<GenerationEvent> events = new AbstractIterator<>() {
        @Override protected GenerationEvent computeNext() {
            try {
                while (!isComplete) {
                    var next = inbox.take();
                    if (next instanceof Throwable lost) {
                        goOn(lost);
                    } else if (next instanceof GenerationEvent event && isNews(event)) {
                        tries = 0;
                        isComplete = event.hasCompleted();
                        return event;
                    }
                }
                return endOfData();
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
                throw HeadraceException.of(Status.CANCELLED.withCause(interrupted).asRuntimeException());
            }
        }
    };

    Generation(GenerateRequest asked, Session session) {
        var id = asked.getRequestId().isEmpty() ? UUID.randomUUID().toString() : asked.getRequestId();
        var policy = asked.getOnDisconnectValue() == 0 ? DisconnectPolicy.DISCONNECT_POLICY_KEEP : asked.getOnDisconnect();
        this.request = asked.toBuilder().setRequestId(id).setOnDisconnect(policy).build();
        this.session = session;
    }

    /** The request as it was sent, with its id. */
    public GenerateRequest request() { return request; }

    @Override public Iterator<GenerationEvent> iterator() { return events; }

    /** The pieces of its text. An answer that starts again at another provider (MID_STREAM_FALLBACK_RESTART) is an exception here. */
    public Stream<String> text() {
        return StreamSupport.stream(spliterator(), false).mapMulti((event, next) -> {
            if (event.hasDiscontinuity()) {
                throw new IllegalStateException("the answer starts again, which its text alone cannot show: read the events");
            } else if (event.getChunk().hasText()) {
                next.accept(event.getChunk().getText());
            }
        });
    }

    /** Ends the generation where it still runs, and returns when that is on record; throws a HeadraceException where that fails. */
    public void cancel() {
        var stub = RequestServiceGrpc.newFutureStub(session.stub.getChannel()).withDeadlineAfter(CANCEL_SECONDS, TimeUnit.SECONDS);
        var command = CancelRequestRequest.newBuilder().setRequestId(request.getRequestId()).build();
        while (session.running.containsValue(this)) {
            try {
                Uninterruptibles.getUninterruptibly(stub.cancelRequest(command));
                return;
            } catch (ExecutionException failed) {
                switch (Status.fromThrowable(failed).getCode()) { // the request is on its way, or the connection is lost
                    case NOT_FOUND, UNAVAILABLE -> Uninterruptibles.sleepUninterruptibly(PAUSE_MILLIS, TimeUnit.MILLISECONDS);
                    default -> throw HeadraceException.of(failed.getCause());
                }
            }
        }
    }

    /** Leaves it, which cancels it. */
    @Override public void close() { cancel(); }

    /** Asks for the events that have not been told. */
    void ask() {
        var rest = ResumeCommand.newBuilder().setRequestId(request.getRequestId()).setNextIndex(nextIndex);
        var command = StreamGenerateRequest.newBuilder(); // before the first chunk the server may not know it yet; if it does, it goes on
        session.send(this, (nextIndex == 0 ? command.setGenerate(request) : command.setResume(rest)).build());
    }

    private boolean isNews(GenerationEvent event) {
        var index = event.getChunk().getIndex();
        if (event.hasFailed()) {
            throw new HeadraceException(event.getFailed(), null);
        } else if (event.hasChunk() && index > nextIndex) {
            throw HeadraceException.of(Status.DATA_LOSS.withDescription("chunk %d is missing".formatted(nextIndex)).asRuntimeException());
        }
        return event.hasChunk() ? index == nextIndex && ++nextIndex > index : told.add(event);
    }

    private void goOn(Throwable lost) throws InterruptedException {
        var code = Status.fromThrowable(lost).getCode();
        var isLost = code == Status.Code.UNAVAILABLE || code == Status.Code.INTERNAL; // as which some proxies end a stream
        if (!isLost || tries == TRIES || request.getOnDisconnect() == DisconnectPolicy.DISCONNECT_POLICY_CANCEL) {
            throw HeadraceException.of(lost);
        }
        Thread.sleep(Math.min(1000, PAUSE_MILLIS << tries++));
        ask();
    }
}
