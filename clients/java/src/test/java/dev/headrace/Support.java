package dev.headrace;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.headrace.v1.ErrorCode;
import dev.headrace.v1.FallbackConfig;
import dev.headrace.v1.FinishReason;
import dev.headrace.v1.GenerateRequest;
import dev.headrace.v1.GenerationEvent;
import dev.headrace.v1.GenerationResult;
import dev.headrace.v1.GetRequestRequest;
import dev.headrace.v1.ProviderError;
import dev.headrace.v1.RequestRecord;
import dev.headrace.v1.RequestState;
import dev.headrace.v1.StateTransition;
import dev.headrace.v1.StreamChunk;
import dev.headrace.v1.StreamGenerateRequest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** What the steps of the scenario share: requests, what is read of a stream, and what must be seen. */
final class Support {
    static final Duration IN_20S = Duration.ofSeconds(20);
    static final String ECHOED = "You said: one two three This answer comes from the fake provider, one word at a time.";
    static final String SLOW_TEXT = IntStream.range(0, 64).mapToObj(i -> " tok" + i).collect(Collectors.joining());

    private Support() {}

    static GenerateRequest.Builder requestTo(String provider) {
        return HeadraceClient.prompt("one two three")
                .setRequestId(UUID.randomUUID().toString())
                .setProvider(provider)
                .setFallback(FallbackConfig.newBuilder().setEnabled(false));
    }

    static StreamGenerateRequest generate(GenerateRequest request) {
        return StreamGenerateRequest.newBuilder().setGenerate(request).build();
    }

    /** What was read of one generation. */
    record Summary(List<StateTransition> transitions, List<StreamChunk> chunks, GenerationEvent last) {
        static Summary of(Iterable<GenerationEvent> events) {
            var transitions = new ArrayList<StateTransition>();
            var chunks = new ArrayList<StreamChunk>();
            GenerationEvent last = null;
            for (var event : events) {
                if (event.hasTransition()) {
                    transitions.add(event.getTransition());
                } else if (event.hasChunk()) {
                    chunks.add(event.getChunk());
                }
                last = event;
            }
            return new Summary(transitions, chunks, last);
        }

        String text() {
            return chunks.stream().map(StreamChunk::getText).collect(Collectors.joining());
        }

        /** Checks that it is the whole of the answer of `slow`. */
        void checkSlow() {
            checkTransitions(transitions);
            for (int i = 0; i < chunks.size(); i++) {
                var isLast = i == chunks.size() - 1;
                assertEquals(i, chunks.get(i).getIndex());
                var reason = isLast ? FinishReason.FINISH_REASON_STOP : FinishReason.FINISH_REASON_UNSPECIFIED;
                assertEquals(reason, chunks.get(i).getFinishReason());
            }
            assertEquals(SLOW_TEXT, text());
            assertTrue(last.hasCompleted(), "the last event is " + last);
            assertEquals(SLOW_TEXT, textOf(last.getCompleted()));
            assertEquals(64, last.getCompleted().getUsage().getOutputTokens());
        }
    }

    static String textOf(GenerationResult result) {
        assertEquals(1, result.getContentCount());
        return result.getContent(0).getText();
    }

    static void checkTransitions(List<StateTransition> seen) {
        var expected = List.of(
                "IDLE VALIDATING", "VALIDATING REQUESTING", "REQUESTING STREAMING", "STREAMING COMPLETED");
        assertEquals(expected, seen.stream().map(step -> word(step.getFromState()) + " " + word(step.getToState())).toList());
    }

    private static String word(RequestState state) {
        return state.name().replace("REQUEST_STATE_", "");
    }

    static void checkCancelled(HeadraceClient client, GenerateRequest request, ProviderError failed) {
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, failed.getCode());
        var partial = textOf(failed.getPartial());
        assertTrue(SLOW_TEXT.startsWith(partial) && partial.length() < SLOW_TEXT.length(), partial);
        var record = recordOf(client, request);
        assertEquals(RequestState.REQUEST_STATE_FAILED, record.getState());
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, record.getErrorCode());
    }

    static RequestRecord recordOf(HeadraceClient client, GenerateRequest request) {
        var id = GetRequestRequest.newBuilder().setRequestId(request.getRequestId()).build();
        return client.request().withDeadlineAfter(IN_20S).getRequest(id).getRequest();
    }
}
