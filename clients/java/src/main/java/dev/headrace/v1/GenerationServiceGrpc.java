package dev.headrace.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Generates answers. Initial metadata goes out at once and carries `traceparent`, and
 * `x-request-id` where the RPC is about one request.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class GenerationServiceGrpc {

  private GenerationServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "headrace.v1.GenerationService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.GenerateRequest,
      dev.headrace.v1.GenerateResponse> getGenerateMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Generate",
      requestType = dev.headrace.v1.GenerateRequest.class,
      responseType = dev.headrace.v1.GenerateResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.GenerateRequest,
      dev.headrace.v1.GenerateResponse> getGenerateMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.GenerateRequest, dev.headrace.v1.GenerateResponse> getGenerateMethod;
    if ((getGenerateMethod = GenerationServiceGrpc.getGenerateMethod) == null) {
      synchronized (GenerationServiceGrpc.class) {
        if ((getGenerateMethod = GenerationServiceGrpc.getGenerateMethod) == null) {
          GenerationServiceGrpc.getGenerateMethod = getGenerateMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.GenerateRequest, dev.headrace.v1.GenerateResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Generate"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.GenerateRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.GenerateResponse.getDefaultInstance()))
              .setSchemaDescriptor(new GenerationServiceMethodDescriptorSupplier("Generate"))
              .build();
        }
      }
    }
    return getGenerateMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.StreamGenerateRequest,
      dev.headrace.v1.StreamGenerateResponse> getStreamGenerateMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "StreamGenerate",
      requestType = dev.headrace.v1.StreamGenerateRequest.class,
      responseType = dev.headrace.v1.StreamGenerateResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.StreamGenerateRequest,
      dev.headrace.v1.StreamGenerateResponse> getStreamGenerateMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.StreamGenerateRequest, dev.headrace.v1.StreamGenerateResponse> getStreamGenerateMethod;
    if ((getStreamGenerateMethod = GenerationServiceGrpc.getStreamGenerateMethod) == null) {
      synchronized (GenerationServiceGrpc.class) {
        if ((getStreamGenerateMethod = GenerationServiceGrpc.getStreamGenerateMethod) == null) {
          GenerationServiceGrpc.getStreamGenerateMethod = getStreamGenerateMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.StreamGenerateRequest, dev.headrace.v1.StreamGenerateResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "StreamGenerate"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.StreamGenerateRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.StreamGenerateResponse.getDefaultInstance()))
              .setSchemaDescriptor(new GenerationServiceMethodDescriptorSupplier("StreamGenerate"))
              .build();
        }
      }
    }
    return getStreamGenerateMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.SubmitGenerationRequest,
      dev.headrace.v1.SubmitGenerationResponse> getSubmitGenerationMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "SubmitGeneration",
      requestType = dev.headrace.v1.SubmitGenerationRequest.class,
      responseType = dev.headrace.v1.SubmitGenerationResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.SubmitGenerationRequest,
      dev.headrace.v1.SubmitGenerationResponse> getSubmitGenerationMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.SubmitGenerationRequest, dev.headrace.v1.SubmitGenerationResponse> getSubmitGenerationMethod;
    if ((getSubmitGenerationMethod = GenerationServiceGrpc.getSubmitGenerationMethod) == null) {
      synchronized (GenerationServiceGrpc.class) {
        if ((getSubmitGenerationMethod = GenerationServiceGrpc.getSubmitGenerationMethod) == null) {
          GenerationServiceGrpc.getSubmitGenerationMethod = getSubmitGenerationMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.SubmitGenerationRequest, dev.headrace.v1.SubmitGenerationResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "SubmitGeneration"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.SubmitGenerationRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.SubmitGenerationResponse.getDefaultInstance()))
              .setSchemaDescriptor(new GenerationServiceMethodDescriptorSupplier("SubmitGeneration"))
              .build();
        }
      }
    }
    return getSubmitGenerationMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.AttachGenerationRequest,
      dev.headrace.v1.AttachGenerationResponse> getAttachGenerationMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "AttachGeneration",
      requestType = dev.headrace.v1.AttachGenerationRequest.class,
      responseType = dev.headrace.v1.AttachGenerationResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.AttachGenerationRequest,
      dev.headrace.v1.AttachGenerationResponse> getAttachGenerationMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.AttachGenerationRequest, dev.headrace.v1.AttachGenerationResponse> getAttachGenerationMethod;
    if ((getAttachGenerationMethod = GenerationServiceGrpc.getAttachGenerationMethod) == null) {
      synchronized (GenerationServiceGrpc.class) {
        if ((getAttachGenerationMethod = GenerationServiceGrpc.getAttachGenerationMethod) == null) {
          GenerationServiceGrpc.getAttachGenerationMethod = getAttachGenerationMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.AttachGenerationRequest, dev.headrace.v1.AttachGenerationResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "AttachGeneration"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.AttachGenerationRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.AttachGenerationResponse.getDefaultInstance()))
              .setSchemaDescriptor(new GenerationServiceMethodDescriptorSupplier("AttachGeneration"))
              .build();
        }
      }
    }
    return getAttachGenerationMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.ExplainGenerationRequest,
      dev.headrace.v1.ExplainGenerationResponse> getExplainGenerationMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ExplainGeneration",
      requestType = dev.headrace.v1.ExplainGenerationRequest.class,
      responseType = dev.headrace.v1.ExplainGenerationResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.ExplainGenerationRequest,
      dev.headrace.v1.ExplainGenerationResponse> getExplainGenerationMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.ExplainGenerationRequest, dev.headrace.v1.ExplainGenerationResponse> getExplainGenerationMethod;
    if ((getExplainGenerationMethod = GenerationServiceGrpc.getExplainGenerationMethod) == null) {
      synchronized (GenerationServiceGrpc.class) {
        if ((getExplainGenerationMethod = GenerationServiceGrpc.getExplainGenerationMethod) == null) {
          GenerationServiceGrpc.getExplainGenerationMethod = getExplainGenerationMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.ExplainGenerationRequest, dev.headrace.v1.ExplainGenerationResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ExplainGeneration"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ExplainGenerationRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ExplainGenerationResponse.getDefaultInstance()))
              .setSchemaDescriptor(new GenerationServiceMethodDescriptorSupplier("ExplainGeneration"))
              .build();
        }
      }
    }
    return getExplainGenerationMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static GenerationServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<GenerationServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<GenerationServiceStub>() {
        @java.lang.Override
        public GenerationServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new GenerationServiceStub(channel, callOptions);
        }
      };
    return GenerationServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static GenerationServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<GenerationServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<GenerationServiceBlockingV2Stub>() {
        @java.lang.Override
        public GenerationServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new GenerationServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return GenerationServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static GenerationServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<GenerationServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<GenerationServiceBlockingStub>() {
        @java.lang.Override
        public GenerationServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new GenerationServiceBlockingStub(channel, callOptions);
        }
      };
    return GenerationServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static GenerationServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<GenerationServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<GenerationServiceFutureStub>() {
        @java.lang.Override
        public GenerationServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new GenerationServiceFutureStub(channel, callOptions);
        }
      };
    return GenerationServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Generates answers. Initial metadata goes out at once and carries `traceparent`, and
   * `x-request-id` where the RPC is about one request.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * One generation, the whole answer at once.
     * </pre>
     */
    default void generate(dev.headrace.v1.GenerateRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.GenerateResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGenerateMethod(), responseObserver);
    }

    /**
     * <pre>
     * One or many generations over one stream: commands up, events down. Half-closing means 'no more
     * commands': the server finishes what is in flight, then ends the RPC. When the stream carried
     * exactly one generation, the RPC ends with its status; with several it ends OK, and each `failed`
     * event tells of its own.
     * </pre>
     */
    default io.grpc.stub.StreamObserver<dev.headrace.v1.StreamGenerateRequest> streamGenerate(
        io.grpc.stub.StreamObserver<dev.headrace.v1.StreamGenerateResponse> responseObserver) {
      return io.grpc.stub.ServerCalls.asyncUnimplementedStreamingCall(getStreamGenerateMethod(), responseObserver);
    }

    /**
     * <pre>
     * Accepts a generation and answers at once; it runs without a reader, as with KEEP. The RPC's
     * deadline bounds the RPC only.
     * </pre>
     */
    default void submitGeneration(dev.headrace.v1.SubmitGenerationRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.SubmitGenerationResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getSubmitGenerationMethod(), responseObserver);
    }

    /**
     * <pre>
     * The events of a generation from chunk `next_index` on: history first, then live, until it has
     * ended. For readers without bidirectional streams, for second readers, and for resume.
     * </pre>
     */
    default void attachGeneration(dev.headrace.v1.AttachGenerationRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.AttachGenerationResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getAttachGenerationMethod(), responseObserver);
    }

    /**
     * <pre>
     * What would happen, without calling anyone and without leaving a record. The RPC's deadline counts
     * as that of the generation would. What is wrong with the request is part of the answer: the status
     * is OK.
     * </pre>
     */
    default void explainGeneration(dev.headrace.v1.ExplainGenerationRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ExplainGenerationResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getExplainGenerationMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service GenerationService.
   * <pre>
   * Generates answers. Initial metadata goes out at once and carries `traceparent`, and
   * `x-request-id` where the RPC is about one request.
   * </pre>
   */
  public static abstract class GenerationServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return GenerationServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service GenerationService.
   * <pre>
   * Generates answers. Initial metadata goes out at once and carries `traceparent`, and
   * `x-request-id` where the RPC is about one request.
   * </pre>
   */
  public static final class GenerationServiceStub
      extends io.grpc.stub.AbstractAsyncStub<GenerationServiceStub> {
    private GenerationServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected GenerationServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new GenerationServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * One generation, the whole answer at once.
     * </pre>
     */
    public void generate(dev.headrace.v1.GenerateRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.GenerateResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGenerateMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * One or many generations over one stream: commands up, events down. Half-closing means 'no more
     * commands': the server finishes what is in flight, then ends the RPC. When the stream carried
     * exactly one generation, the RPC ends with its status; with several it ends OK, and each `failed`
     * event tells of its own.
     * </pre>
     */
    public io.grpc.stub.StreamObserver<dev.headrace.v1.StreamGenerateRequest> streamGenerate(
        io.grpc.stub.StreamObserver<dev.headrace.v1.StreamGenerateResponse> responseObserver) {
      return io.grpc.stub.ClientCalls.asyncBidiStreamingCall(
          getChannel().newCall(getStreamGenerateMethod(), getCallOptions()), responseObserver);
    }

    /**
     * <pre>
     * Accepts a generation and answers at once; it runs without a reader, as with KEEP. The RPC's
     * deadline bounds the RPC only.
     * </pre>
     */
    public void submitGeneration(dev.headrace.v1.SubmitGenerationRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.SubmitGenerationResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getSubmitGenerationMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * The events of a generation from chunk `next_index` on: history first, then live, until it has
     * ended. For readers without bidirectional streams, for second readers, and for resume.
     * </pre>
     */
    public void attachGeneration(dev.headrace.v1.AttachGenerationRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.AttachGenerationResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getAttachGenerationMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * What would happen, without calling anyone and without leaving a record. The RPC's deadline counts
     * as that of the generation would. What is wrong with the request is part of the answer: the status
     * is OK.
     * </pre>
     */
    public void explainGeneration(dev.headrace.v1.ExplainGenerationRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ExplainGenerationResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getExplainGenerationMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service GenerationService.
   * <pre>
   * Generates answers. Initial metadata goes out at once and carries `traceparent`, and
   * `x-request-id` where the RPC is about one request.
   * </pre>
   */
  public static final class GenerationServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<GenerationServiceBlockingV2Stub> {
    private GenerationServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected GenerationServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new GenerationServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * One generation, the whole answer at once.
     * </pre>
     */
    public dev.headrace.v1.GenerateResponse generate(dev.headrace.v1.GenerateRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGenerateMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * One or many generations over one stream: commands up, events down. Half-closing means 'no more
     * commands': the server finishes what is in flight, then ends the RPC. When the stream carried
     * exactly one generation, the RPC ends with its status; with several it ends OK, and each `failed`
     * event tells of its own.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<dev.headrace.v1.StreamGenerateRequest, dev.headrace.v1.StreamGenerateResponse>
        streamGenerate() {
      return io.grpc.stub.ClientCalls.blockingBidiStreamingCall(
          getChannel(), getStreamGenerateMethod(), getCallOptions());
    }

    /**
     * <pre>
     * Accepts a generation and answers at once; it runs without a reader, as with KEEP. The RPC's
     * deadline bounds the RPC only.
     * </pre>
     */
    public dev.headrace.v1.SubmitGenerationResponse submitGeneration(dev.headrace.v1.SubmitGenerationRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getSubmitGenerationMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The events of a generation from chunk `next_index` on: history first, then live, until it has
     * ended. For readers without bidirectional streams, for second readers, and for resume.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<?, dev.headrace.v1.AttachGenerationResponse>
        attachGeneration(dev.headrace.v1.AttachGenerationRequest request) {
      return io.grpc.stub.ClientCalls.blockingV2ServerStreamingCall(
          getChannel(), getAttachGenerationMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * What would happen, without calling anyone and without leaving a record. The RPC's deadline counts
     * as that of the generation would. What is wrong with the request is part of the answer: the status
     * is OK.
     * </pre>
     */
    public dev.headrace.v1.ExplainGenerationResponse explainGeneration(dev.headrace.v1.ExplainGenerationRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getExplainGenerationMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service GenerationService.
   * <pre>
   * Generates answers. Initial metadata goes out at once and carries `traceparent`, and
   * `x-request-id` where the RPC is about one request.
   * </pre>
   */
  public static final class GenerationServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<GenerationServiceBlockingStub> {
    private GenerationServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected GenerationServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new GenerationServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * One generation, the whole answer at once.
     * </pre>
     */
    public dev.headrace.v1.GenerateResponse generate(dev.headrace.v1.GenerateRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGenerateMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Accepts a generation and answers at once; it runs without a reader, as with KEEP. The RPC's
     * deadline bounds the RPC only.
     * </pre>
     */
    public dev.headrace.v1.SubmitGenerationResponse submitGeneration(dev.headrace.v1.SubmitGenerationRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getSubmitGenerationMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The events of a generation from chunk `next_index` on: history first, then live, until it has
     * ended. For readers without bidirectional streams, for second readers, and for resume.
     * </pre>
     */
    public java.util.Iterator<dev.headrace.v1.AttachGenerationResponse> attachGeneration(
        dev.headrace.v1.AttachGenerationRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getAttachGenerationMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * What would happen, without calling anyone and without leaving a record. The RPC's deadline counts
     * as that of the generation would. What is wrong with the request is part of the answer: the status
     * is OK.
     * </pre>
     */
    public dev.headrace.v1.ExplainGenerationResponse explainGeneration(dev.headrace.v1.ExplainGenerationRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getExplainGenerationMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service GenerationService.
   * <pre>
   * Generates answers. Initial metadata goes out at once and carries `traceparent`, and
   * `x-request-id` where the RPC is about one request.
   * </pre>
   */
  public static final class GenerationServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<GenerationServiceFutureStub> {
    private GenerationServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected GenerationServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new GenerationServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * One generation, the whole answer at once.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.GenerateResponse> generate(
        dev.headrace.v1.GenerateRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGenerateMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Accepts a generation and answers at once; it runs without a reader, as with KEEP. The RPC's
     * deadline bounds the RPC only.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.SubmitGenerationResponse> submitGeneration(
        dev.headrace.v1.SubmitGenerationRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getSubmitGenerationMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * What would happen, without calling anyone and without leaving a record. The RPC's deadline counts
     * as that of the generation would. What is wrong with the request is part of the answer: the status
     * is OK.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.ExplainGenerationResponse> explainGeneration(
        dev.headrace.v1.ExplainGenerationRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getExplainGenerationMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_GENERATE = 0;
  private static final int METHODID_SUBMIT_GENERATION = 1;
  private static final int METHODID_ATTACH_GENERATION = 2;
  private static final int METHODID_EXPLAIN_GENERATION = 3;
  private static final int METHODID_STREAM_GENERATE = 4;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final AsyncService serviceImpl;
    private final int methodId;

    MethodHandlers(AsyncService serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_GENERATE:
          serviceImpl.generate((dev.headrace.v1.GenerateRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.GenerateResponse>) responseObserver);
          break;
        case METHODID_SUBMIT_GENERATION:
          serviceImpl.submitGeneration((dev.headrace.v1.SubmitGenerationRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.SubmitGenerationResponse>) responseObserver);
          break;
        case METHODID_ATTACH_GENERATION:
          serviceImpl.attachGeneration((dev.headrace.v1.AttachGenerationRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.AttachGenerationResponse>) responseObserver);
          break;
        case METHODID_EXPLAIN_GENERATION:
          serviceImpl.explainGeneration((dev.headrace.v1.ExplainGenerationRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.ExplainGenerationResponse>) responseObserver);
          break;
        default:
          throw new AssertionError();
      }
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public io.grpc.stub.StreamObserver<Req> invoke(
        io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_STREAM_GENERATE:
          return (io.grpc.stub.StreamObserver<Req>) serviceImpl.streamGenerate(
              (io.grpc.stub.StreamObserver<dev.headrace.v1.StreamGenerateResponse>) responseObserver);
        default:
          throw new AssertionError();
      }
    }
  }

  public static final io.grpc.ServerServiceDefinition bindService(AsyncService service) {
    return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
        .addMethod(
          getGenerateMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.GenerateRequest,
              dev.headrace.v1.GenerateResponse>(
                service, METHODID_GENERATE)))
        .addMethod(
          getStreamGenerateMethod(),
          io.grpc.stub.ServerCalls.asyncBidiStreamingCall(
            new MethodHandlers<
              dev.headrace.v1.StreamGenerateRequest,
              dev.headrace.v1.StreamGenerateResponse>(
                service, METHODID_STREAM_GENERATE)))
        .addMethod(
          getSubmitGenerationMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.SubmitGenerationRequest,
              dev.headrace.v1.SubmitGenerationResponse>(
                service, METHODID_SUBMIT_GENERATION)))
        .addMethod(
          getAttachGenerationMethod(),
          io.grpc.stub.ServerCalls.asyncServerStreamingCall(
            new MethodHandlers<
              dev.headrace.v1.AttachGenerationRequest,
              dev.headrace.v1.AttachGenerationResponse>(
                service, METHODID_ATTACH_GENERATION)))
        .addMethod(
          getExplainGenerationMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.ExplainGenerationRequest,
              dev.headrace.v1.ExplainGenerationResponse>(
                service, METHODID_EXPLAIN_GENERATION)))
        .build();
  }

  private static abstract class GenerationServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    GenerationServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return dev.headrace.v1.GenerationServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("GenerationService");
    }
  }

  private static final class GenerationServiceFileDescriptorSupplier
      extends GenerationServiceBaseDescriptorSupplier {
    GenerationServiceFileDescriptorSupplier() {}
  }

  private static final class GenerationServiceMethodDescriptorSupplier
      extends GenerationServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    GenerationServiceMethodDescriptorSupplier(java.lang.String methodName) {
      this.methodName = methodName;
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.MethodDescriptor getMethodDescriptor() {
      return getServiceDescriptor().findMethodByName(methodName);
    }
  }

  private static volatile io.grpc.ServiceDescriptor serviceDescriptor;

  public static io.grpc.ServiceDescriptor getServiceDescriptor() {
    io.grpc.ServiceDescriptor result = serviceDescriptor;
    if (result == null) {
      synchronized (GenerationServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new GenerationServiceFileDescriptorSupplier())
              .addMethod(getGenerateMethod())
              .addMethod(getStreamGenerateMethod())
              .addMethod(getSubmitGenerationMethod())
              .addMethod(getAttachGenerationMethod())
              .addMethod(getExplainGenerationMethod())
              .build();
        }
      }
    }
    return result;
  }
}
