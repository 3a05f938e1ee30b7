package dev.headrace;

import dev.headrace.v1.CancelCommand;
import dev.headrace.v1.DisconnectPolicy;
import dev.headrace.v1.GenerateRequest;
import dev.headrace.v1.GenerationEvent;
import dev.headrace.v1.ResumeCommand;
import dev.headrace.v1.StreamGenerateRequest;
import io.grpc.Status;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * One generation. Iterating gives the events that have not been read yet, as they come, `completed` last; one that fails throws a
 * HeadraceException. It has one reader.
 */
public final class Generation implements Iterable<GenerationEvent>, AutoCloseable {
    /** An event, or the end, by an error or without one. */
    private record Item(GenerationEvent event, HeadraceException error) {}

    boolean isCancelled;

    private final GenerateRequest request;
    private final Session session;
    private final BlockingQueue<Item> items = new LinkedBlockingQueue<>();
    private Item head; // what comes next, where the reader has looked already
    private int nextIndex; // how many chunks came
    private int sinceChunk; // how many transitions came after the last of them
    private int seen; // how many of those will come again

    Generation(GenerateRequest request, Session session) {
        this.request = request;
        this.session = session;
    }

    /** The request as it was sent, with its id. */
    public GenerateRequest request() {
        return request;
    }

    @Override
    public Iterator<GenerationEvent> iterator() {
        return new Iterator<>() {
            @Override
            public boolean hasNext() {
                return head().event() != null;
            }

            @Override
            public GenerationEvent next() {
                if (!hasNext()) {
                    throw new NoSuchElementException();
                }
                var event = head.event();
                head = null;
                return event;
            }
        };
    }

    /** The pieces of its text. An answer that starts again at another provider (MID_STREAM_FALLBACK_RESTART) is an exception here. */
    public Stream<String> text() {
        var events = Spliterators.spliteratorUnknownSize(iterator(), Spliterator.ORDERED | Spliterator.NONNULL);
        return StreamSupport.stream(events, false).mapMulti((event, next) -> {
            if (event.hasDiscontinuity()) {
                throw new IllegalStateException("the answer starts again, which its text alone cannot show: read the events");
            }
            if (event.getChunk().hasText()) {
                next.accept(event.getChunk().getText());
            }
        });
    }

    /** Asks the server to end the generation. The last event tells how it ended. */
    public void cancel() {
        session.cancel(this);
    }

    /** Goes away from it: the server cancels it, unless the request's on_disconnect says that it runs on. */
    @Override
    public void close() {
        session.leave(this);
    }

    private Item head() {
        try {
            head = head == null ? items.take() : head;
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw HeadraceException.of(Status.CANCELLED.withCause(interrupted), "the reader was interrupted");
        }
        if (head.error() != null) {
            throw head.error();
        }
        return head;
    }

    boolean outlivesConnection() {
        var policy = request.getOnDisconnect();
        return policy == DisconnectPolicy.DISCONNECT_POLICY_DRAIN || policy == DisconnectPolicy.DISCONNECT_POLICY_KEEP;
    }

    /** What starts the generation on a stream, or takes it up where the last stream left it. */
    List<StreamGenerateRequest> commands() {
        seen = sinceChunk;
        sinceChunk = 0;
        var first = StreamGenerateRequest.newBuilder();
        if (nextIndex == 0) { // the server may not know it yet; if it does, the id attaches to it
            first.setGenerate(request);
        } else {
            first.setResume(ResumeCommand.newBuilder().setRequestId(request.getRequestId()).setNextIndex(nextIndex));
        }
        return isCancelled ? List.of(first.build(), cancelCommand()) : List.of(first.build());
    }

    StreamGenerateRequest cancelCommand() {
        return StreamGenerateRequest.newBuilder().setCancel(CancelCommand.newBuilder().setRequestId(request.getRequestId())).build();
    }

    /** Keeps an event for the reader, and tells whether it is the last one. */
    boolean take(GenerationEvent event) {
        switch (event.getEventCase()) {
            case TRANSITION -> {
                if (++sinceChunk <= seen) {
                    return false; // told again after a resume
                }
            }
            case CHUNK -> {
                if (event.getChunk().getIndex() != nextIndex) {
                    var message = "chunk %d came where %d was due".formatted(event.getChunk().getIndex(), nextIndex);
                    end(HeadraceException.of(Status.DATA_LOSS, message));
                    return true;
                }
                nextIndex++;
                sinceChunk = 0;
                seen = 0;
            }
            case FAILED -> {
                end(HeadraceException.of(event.getFailed()));
                return true;
            }
            default -> {}
        }
        items.add(new Item(event, null));
        if (event.hasCompleted()) {
            end(null);
        }
        return event.hasCompleted();
    }

    /** With an error, or without one where the answer is complete. */
    void end(HeadraceException error) {
        items.add(new Item(null, error));
    }
}
