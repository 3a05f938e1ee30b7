package dev.headrace;

import static dev.headrace.Support.ECHOED;
import static dev.headrace.Support.IN_20S;
import static dev.headrace.Support.SLOW_TEXT;
import static dev.headrace.Support.checkCancelled;
import static dev.headrace.Support.checkTransitions;
import static dev.headrace.Support.generate;
import static dev.headrace.Support.recordOf;
import static dev.headrace.Support.requestTo;
import static dev.headrace.Support.textOf;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import com.google.gson.JsonArray;
import com.google.gson.JsonParser;
import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import com.google.protobuf.util.Timestamps;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.headrace.Support.Summary;
import dev.headrace.v1.AttachGenerationRequest;
import dev.headrace.v1.AttachGenerationResponse;
import dev.headrace.v1.CancelCommand;
import dev.headrace.v1.ChatMessage;
import dev.headrace.v1.ContentPart;
import dev.headrace.v1.DisconnectPolicy;
import dev.headrace.v1.ErrorCode;
import dev.headrace.v1.FinishReason;
import dev.headrace.v1.GenerateRequest;
import dev.headrace.v1.GenerationEvent;
import dev.headrace.v1.GenerationServiceGrpc;
import dev.headrace.v1.MessageRole;
import dev.headrace.v1.RequestState;
import dev.headrace.v1.StateTransition;
import dev.headrace.v1.StreamGenerateRequest;
import dev.headrace.v1.StreamGenerateResponse;
import dev.headrace.v1.SubmitGenerationRequest;
import dev.headrace.v1.Tool;
import dev.headrace.v1.ToolCall;
import dev.headrace.v1.ToolResult;
import dev.headrace.v1.Usage;
import dev.headrace.v1.UsageSource;
import dev.headrace.v1.WatchRequestRequest;
import dev.headrace.v1.WatchRequestResponse;
import io.grpc.Attributes;
import io.grpc.ClientTransportFilter;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.BlockingClientCall;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.TestWatcher;

/** The steps of tests/clients/README.md, each named as there. */
@ExtendWith(ScenarioTest.Report.class)
class ScenarioTest {
    private static ManagedChannel channel;
    private static HeadraceClient client;

    @BeforeAll
    static void connect() {
        var isMissing = System.getenv("HEADRACE_TARGET") == null;
        if (isMissing && "true".equals(System.getenv("CI"))) {
            fail("there is no service: run this by `make test-clients`");
        }
        Assumptions.assumeFalse(isMissing, "there is no service: run this by `make test-clients`");
        channel = Grpc.newChannelBuilder(System.getenv("HEADRACE_TARGET"), InsecureChannelCredentials.create()).build();
        client = new HeadraceClient(channel);
    }

    @AfterAll
    static void disconnect() {
        if (client != null) {
            client.close();
        }
    }

    @Test
    void unary() {
        var request = requestTo("echo").build();
        var headers = new AtomicReference<Metadata>();
        var capture = MetadataUtils.newCaptureMetadataInterceptor(headers, new AtomicReference<>());
        var response = client.generation().withInterceptors(capture).withDeadlineAfter(IN_20S).generate(request);
        assertEquals(request.getRequestId(), response.getRequestId());
        assertEquals(request.getRequestId(), headers.get().get(Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER)));
        var result = response.getResult();
        assertEquals(ECHOED, textOf(result));
        assertEquals(FinishReason.FINISH_REASON_STOP, result.getFinishReason());
        assertEquals("echo", result.getProvider());
        var usage = Usage.newBuilder().setInputTokens(3).setOutputTokens(17).setTotalTokens(20);
        assertEquals(usage.setSource(UsageSource.USAGE_SOURCE_PROVIDER).build(), result.getUsage());
    }

    @Test
    void stream() throws Exception {
        var rpc = openStream();
        rpc.write(generate(requestTo("slow").build()));
        rpc.halfClose();
        var events = new ArrayList<GenerationEvent>();
        for (StreamGenerateResponse response; (response = rpc.read()) != null; ) { // throws where the status is not OK
            events.addAll(response.getEventsList());
        }
        Summary.of(events).checkSlow();

        try (var told = client.events(IN_20S, requestTo("slow").build())) {
            Summary.of(told).checkSlow();
        }
        try (var told = client.events(requestTo("echo").build())) {
            assertEquals(ECHOED, String.join("", told.text().toList()));
        }
    }

    @Test
    void tool_call() {
        var parameters = "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"]}";
        var tool = Tool.newBuilder().setName("get_weather").setDescription("The weather in a city.").setParametersJson(parameters);
        Summary seen;
        try (var events = client.events(IN_20S, requestTo("tool").addTools(tool).build())) {
            seen = Summary.of(events);
        }
        var call = ToolCall.newBuilder();
        for (var chunk : seen.chunks()) {
            var delta = chunk.getToolCall();
            assertEquals(0, delta.getPosition());
            call.setId(call.getId() + delta.getId());
            call.setName(call.getName() + delta.getName());
            call.setArgumentsJson(call.getArgumentsJson() + delta.getArgumentsDelta());
        }
        var arguments = "{\"city\":\"Paris\"}";
        var expected = ToolCall.newBuilder().setId("call_weather_1").setName("get_weather").setArgumentsJson(arguments).build();
        assertEquals(expected, call.build());
        var result = seen.last().getCompleted();
        assertEquals(FinishReason.FINISH_REASON_TOOL_CALLS, result.getFinishReason());
        assertEquals(List.of(ContentPart.newBuilder().setToolCall(expected).build()), result.getContentList());

        var sunny = ToolResult.newBuilder().setToolCallId("call_weather_1").addContent(ContentPart.newBuilder().setText("sunny"));
        var answer = ContentPart.newBuilder().setToolResult(sunny);
        var next = requestTo("echo")
                .addTools(tool)
                .addMessages(ChatMessage.newBuilder().setRole(MessageRole.MESSAGE_ROLE_ASSISTANT).addAllContent(result.getContentList()))
                .addMessages(ChatMessage.newBuilder().setRole(MessageRole.MESSAGE_ROLE_TOOL).addContent(answer));
        var text = textOf(client.generation().withDeadlineAfter(IN_20S).generate(next.build()).getResult());
        assertTrue(text.startsWith("You said: sunny "), text);
    }

    @Test
    void two_on_one_stream() {
        var slow = requestTo("slow").build();
        var echo = requestTo("echo").build();
        var told = new ArrayList<GenerationEvent>();
        try (var events = client.events(IN_20S, slow, echo)) {
            events.forEach(told::add);
        }
        Summary.of(eventsOf(slow, told)).checkSlow();
        var echoed = Summary.of(eventsOf(echo, told));
        assertEquals(ECHOED, echoed.text());
        assertEquals(ECHOED, textOf(echoed.last().getCompleted()));
        var last = told.get(told.size() - 1);
        assertEquals(slow.getRequestId(), last.getRequestId(), "slow ended before echo");
    }

    private static List<GenerationEvent> eventsOf(GenerateRequest request, List<GenerationEvent> told) {
        return told.stream().filter(event -> event.getRequestId().equals(request.getRequestId())).toList();
    }

    @Test
    void cancel() throws Exception {
        var request = requestTo("slow").build();
        var rpc = openStream();
        rpc.write(generate(request));
        var events = new ArrayList<GenerationEvent>();
        while (events.stream().noneMatch(GenerationEvent::hasChunk)) {
            events.addAll(rpc.read().getEventsList());
        }
        var command = CancelCommand.newBuilder().setRequestId(request.getRequestId());
        rpc.write(StreamGenerateRequest.newBuilder().setCancel(command).build());
        rpc.halfClose();
        var status = assertThrows(StatusException.class, () -> {
            for (StreamGenerateResponse response; (response = rpc.read()) != null; ) {
                events.addAll(response.getEventsList());
            }
        });
        assertEquals(Status.Code.CANCELLED, status.getStatus().getCode());
        checkCancelled(client, request, events.get(events.size() - 1).getFailed());

        var other = requestTo("slow").build();
        try (var told = client.events(IN_20S, other)) {
            var error = assertThrows(HeadraceException.class, () -> {
                for (var event : told) {
                    if (event.hasChunk()) {
                        told.cancel(other.getRequestId());
                    }
                }
            });
            checkCancelled(client, other, error.detail().orElseThrow());
        }

        var left = requestTo("slow").build();
        try (var told = client.events(IN_20S, left)) {
            assertEquals(" tok0", told.text().iterator().next().substring(0, 5));
        }
        assertEquals(ErrorCode.ERROR_CODE_CANCELLED, recordOf(client, left).getErrorCode());
    }

    @Test
    void deadline() throws Exception {
        var request = requestTo("stuck").build();
        var begin = System.nanoTime();
        var stub = client.generation().withDeadlineAfter(Duration.ofMillis(300));
        var error = assertThrows(StatusRuntimeException.class, () -> stub.generate(request));
        assertTrue(System.nanoTime() - begin < 5e9);
        assertEquals(Status.Code.DEADLINE_EXCEEDED, error.getStatus().getCode());
        assertEquals(ErrorCode.ERROR_CODE_TIMEOUT, HeadraceException.of(error).code());
        var asked = System.nanoTime();
        var record = recordOf(client, request);
        while (record.getState() != RequestState.REQUEST_STATE_FAILED && System.nanoTime() - asked < 5e9) {
            Thread.sleep(20);
            record = recordOf(client, request);
        }
        assertEquals(RequestState.REQUEST_STATE_FAILED, record.getState());
        assertEquals(ErrorCode.ERROR_CODE_TIMEOUT, record.getErrorCode());
    }

    @Test
    void resume() {
        var connections = new AtomicInteger();
        var counter = new ClientTransportFilter() {
            @Override
            public Attributes transportReady(Attributes attributes) {
                connections.incrementAndGet();
                return attributes;
            }
        };
        var proxy = Grpc.newChannelBuilder(System.getenv("HEADRACE_PROXY"), InsecureChannelCredentials.create());
        var kept = requestTo("slow").setOnDisconnect(DisconnectPolicy.DISCONNECT_POLICY_KEEP).build();
        var ending = requestTo("slow").setOnDisconnect(DisconnectPolicy.DISCONNECT_POLICY_CANCEL).build();
        try (var throughProxy = new HeadraceClient(proxy.addTransportFilter(counter).build());
                var goesOn = throughProxy.events(IN_20S, kept);
                var ends = throughProxy.events(IN_20S, ending)) {
            Summary.of(goesOn).checkSlow();
            assertTrue(connections.get() >= 3, "it was not resumed twice: " + connections);
            var error = assertThrows(HeadraceException.class, () -> Summary.of(ends));
            assertEquals(ErrorCode.ERROR_CODE_CANCELLED, error.code(), "where it ends with the connection");
        }
    }

    @Test
    void rate_limit() throws Exception {
        var stub = client.generation().withDeadlineAfter(IN_20S);
        var request = requestTo("limited").build();
        var failure = assertThrows(StatusRuntimeException.class, () -> stub.generate(request));
        assertEquals(Status.Code.RESOURCE_EXHAUSTED, failure.getStatus().getCode());
        ErrorInfo info = null;
        RetryInfo retry = null;
        for (Any any : StatusProto.fromThrowable(failure).getDetailsList()) {
            info = any.is(ErrorInfo.class) ? any.unpack(ErrorInfo.class) : info;
            retry = any.is(RetryInfo.class) ? any.unpack(RetryInfo.class) : retry;
        }
        assertEquals("RATE_LIMIT_EXCEEDED", info.getReason());
        assertEquals("headrace.dev", info.getDomain());
        var delay = Duration.ofSeconds(retry.getRetryDelay().getSeconds(), retry.getRetryDelay().getNanos());
        assertTrue(delay.toMillis() >= 7000 && delay.toMillis() <= 8400, delay.toString());
        assertEquals("-1", failure.getTrailers().get(Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER)));
        var error = HeadraceException.of(failure);
        assertEquals(ErrorCode.ERROR_CODE_RATE_LIMIT_EXCEEDED, error.code());
        assertEquals(delay, error.retryAfter().orElseThrow());
        assertEquals(429, error.detail().orElseThrow().getHttpStatus());
    }

    @Test
    void invalid() {
        var request = requestTo("echo").setTemperature(3);
        request.getMessagesBuilder(0).clearContent().addContent(ContentPart.getDefaultInstance());
        var stub = client.generation().withDeadlineAfter(IN_20S);
        var failure = assertThrows(StatusRuntimeException.class, () -> stub.generate(request.build()));
        assertEquals(Status.Code.INVALID_ARGUMENT, failure.getStatus().getCode());
        var fields = HeadraceException.of(failure).fieldViolations().stream().map(violation -> violation.getField()).sorted().toList();
        assertEquals(List.of("messages[0].content[0]", "temperature"), fields);
    }

    @Test
    void watch() {
        var request = requestTo("slow").build();
        var id = request.getRequestId();
        var submit = SubmitGenerationRequest.newBuilder().setRequest(request).build();
        var submitted = client.generation().withDeadlineAfter(IN_20S).submitGeneration(submit);
        assertEquals(id, submitted.getRequestId());
        var terminal = List.of(RequestState.REQUEST_STATE_COMPLETED, RequestState.REQUEST_STATE_FAILED);
        assertFalse(terminal.contains(submitted.getState()), submitted.toString());

        var transitions = new ArrayList<StateTransition>();
        Iterator<WatchRequestResponse> watching =
                client.request().withDeadlineAfter(IN_20S).watchRequest(WatchRequestRequest.newBuilder().setRequestId(id).build());
        watching.forEachRemaining(response -> transitions.add(response.getTransition()));
        checkTransitions(transitions);
        var millis = Timestamps.toMillis(transitions.get(3).getTime()) - Timestamps.toMillis(transitions.get(0).getTime());
        assertTrue(millis > 1000, millis + " ms");

        var events = new ArrayList<GenerationEvent>();
        var attach = AttachGenerationRequest.newBuilder().setRequestId(id).setNextIndex(60).build();
        Iterator<AttachGenerationResponse> attached = client.generation().withDeadlineAfter(IN_20S).attachGeneration(attach);
        attached.forEachRemaining(response -> events.addAll(response.getEventsList()));
        var rest = Summary.of(events);
        var indexes = rest.chunks().stream().map(chunk -> chunk.getIndex()).toList();
        assertFalse(indexes.isEmpty());
        assertEquals(IntStream.range(60, 60 + indexes.size()).boxed().toList(), indexes);
        assertTrue(rest.last().hasCompleted());
    }

    @Test
    void vectors() throws Exception {
        var folder = Path.of(System.getenv("HEADRACE_VECTORS"));
        JsonArray index = JsonParser.parseString(Files.readString(folder.resolve("index.json"))).getAsJsonArray();
        assertTrue(index.size() >= 50, "there are only " + index.size());
        for (var element : index) {
            var name = element.getAsJsonObject().get("name").getAsString();
            var type = element.getAsJsonObject().get("type").getAsString().replace("headrace.v1.", "dev.headrace.v1.");
            var empty = (Message) Class.forName(type).getMethod("getDefaultInstance").invoke(null);
            var binary = Files.readAllBytes(folder.resolve(name + ".binpb"));
            var decoded = empty.getParserForType().parseFrom(binary);
            assertArrayEquals(binary, decoded.toByteArray(), name);
            var fromJson = empty.newBuilderForType();
            JsonFormat.parser().merge(Files.readString(folder.resolve(name + ".json")), fromJson);
            assertEquals(decoded, fromJson.build(), name);
        }
    }

    private static BlockingClientCall<StreamGenerateRequest, StreamGenerateResponse> openStream() {
        return GenerationServiceGrpc.newBlockingV2Stub(channel).withDeadlineAfter(IN_20S).streamGenerate();
    }

    /** Appends a line for each step to the results. */
    static final class Report implements TestWatcher {
        @Override
        public void testSuccessful(ExtensionContext context) {
            report(context, true);
        }

        @Override
        public void testFailed(ExtensionContext context, Throwable cause) {
            report(context, false);
        }

        private static void report(ExtensionContext context, boolean ok) {
            var path = System.getenv("HEADRACE_CLIENT_RESULTS");
            if (path == null) {
                return;
            }
            var line = "{\"language\": \"java\", \"step\": \"%s\", \"ok\": %b}\n".formatted(context.getRequiredTestMethod().getName(), ok);
            try {
                Files.writeString(Path.of(path), line, StandardCharsets.UTF_8, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }
}
