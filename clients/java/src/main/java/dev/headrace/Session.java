package dev.headrace;

import dev.headrace.v1.*;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.util.*;
import java.util.concurrent.ConcurrentHashMap;

/** Runs generations over one stream, which is open as long as one of them runs. It may be used by several threads. */
public final class Session implements AutoCloseable {
    final GenerationServiceGrpc.GenerationServiceStub stub;
    final Map<String, Generation> running = new ConcurrentHashMap<>(); // by id, until the last event has come
    private Events stream; // null where none is open

    Session(GenerationServiceGrpc.GenerationServiceStub stub) { this.stub = stub; }

    /** Begins a generation. One without a request id gets one; with the id of one that runs in this session, it is that one. */
    public Generation start(GenerateRequest request) {
        var generation = new Generation(request, this);
        var known = running.putIfAbsent(generation.request().getRequestId(), generation);
        if (known == null) {
            generation.ask();
        }
        return known == null ? generation : known;
    }

    /** Closes the generations that still run, one after the other, until closing one throws. */
    @Override public void close() { running.values().forEach(Generation::close); }

    /** Sends what a generation asks for its events with, on the stream that is open or a new one. */
    synchronized void send(Generation generation, StreamGenerateRequest command) {
        var current = stream == null ? new Events() : stream;
        current.readers.put(generation.request().getRequestId(), generation);
        if (stream == null) {
            stream = current;
            current.commands = stub.streamGenerate(current);
        }
        current.commands.onNext(command);
    }

    private synchronized void handOut(StreamGenerateResponse response, Events from) {
        for (var event : response.getEventsList()) {
            var isLast = event.hasCompleted() || event.hasFailed();
            var reader = isLast ? from.readers.remove(event.getRequestId()) : from.readers.get(event.getRequestId());
            if (isLast) {
                running.remove(event.getRequestId());
            }
            if (reader != null) {
                reader.inbox.add(event);
            }
        }
        if (from.readers.isEmpty() && stream == from) {
            stream = null;
            from.commands.onCompleted();
        }
    }

    private synchronized void lose(Throwable failure, Events from) {
        stream = stream == from ? null : stream;
        from.readers.values().forEach(reader -> reader.inbox.add(failure));
    }

    private final class Events implements StreamObserver<StreamGenerateResponse> {
        private final Map<String, Generation> readers = new HashMap<>(); // by id
        private StreamObserver<StreamGenerateRequest> commands;

        @Override public void onNext(StreamGenerateResponse response) { handOut(response, this); }

        @Override public void onError(Throwable failure) { lose(failure, this); }

        @Override public void onCompleted() { onError(Status.UNAVAILABLE.withDescription("the stream ended early").asRuntimeException()); }
    }
}
