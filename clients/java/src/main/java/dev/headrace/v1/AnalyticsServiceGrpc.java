package dev.headrace.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Adds up the records over a time range. Rates are in percent, 0 to 100.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class AnalyticsServiceGrpc {

  private AnalyticsServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "headrace.v1.AnalyticsService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.ListSuccessRatesRequest,
      dev.headrace.v1.ListSuccessRatesResponse> getListSuccessRatesMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListSuccessRates",
      requestType = dev.headrace.v1.ListSuccessRatesRequest.class,
      responseType = dev.headrace.v1.ListSuccessRatesResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.ListSuccessRatesRequest,
      dev.headrace.v1.ListSuccessRatesResponse> getListSuccessRatesMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.ListSuccessRatesRequest, dev.headrace.v1.ListSuccessRatesResponse> getListSuccessRatesMethod;
    if ((getListSuccessRatesMethod = AnalyticsServiceGrpc.getListSuccessRatesMethod) == null) {
      synchronized (AnalyticsServiceGrpc.class) {
        if ((getListSuccessRatesMethod = AnalyticsServiceGrpc.getListSuccessRatesMethod) == null) {
          AnalyticsServiceGrpc.getListSuccessRatesMethod = getListSuccessRatesMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.ListSuccessRatesRequest, dev.headrace.v1.ListSuccessRatesResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListSuccessRates"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListSuccessRatesRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListSuccessRatesResponse.getDefaultInstance()))
              .setSchemaDescriptor(new AnalyticsServiceMethodDescriptorSupplier("ListSuccessRates"))
              .build();
        }
      }
    }
    return getListSuccessRatesMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.ListHourlyPerformanceRequest,
      dev.headrace.v1.ListHourlyPerformanceResponse> getListHourlyPerformanceMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListHourlyPerformance",
      requestType = dev.headrace.v1.ListHourlyPerformanceRequest.class,
      responseType = dev.headrace.v1.ListHourlyPerformanceResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.ListHourlyPerformanceRequest,
      dev.headrace.v1.ListHourlyPerformanceResponse> getListHourlyPerformanceMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.ListHourlyPerformanceRequest, dev.headrace.v1.ListHourlyPerformanceResponse> getListHourlyPerformanceMethod;
    if ((getListHourlyPerformanceMethod = AnalyticsServiceGrpc.getListHourlyPerformanceMethod) == null) {
      synchronized (AnalyticsServiceGrpc.class) {
        if ((getListHourlyPerformanceMethod = AnalyticsServiceGrpc.getListHourlyPerformanceMethod) == null) {
          AnalyticsServiceGrpc.getListHourlyPerformanceMethod = getListHourlyPerformanceMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.ListHourlyPerformanceRequest, dev.headrace.v1.ListHourlyPerformanceResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListHourlyPerformance"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListHourlyPerformanceRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListHourlyPerformanceResponse.getDefaultInstance()))
              .setSchemaDescriptor(new AnalyticsServiceMethodDescriptorSupplier("ListHourlyPerformance"))
              .build();
        }
      }
    }
    return getListHourlyPerformanceMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.ListFailedRequestsRequest,
      dev.headrace.v1.ListFailedRequestsResponse> getListFailedRequestsMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListFailedRequests",
      requestType = dev.headrace.v1.ListFailedRequestsRequest.class,
      responseType = dev.headrace.v1.ListFailedRequestsResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.ListFailedRequestsRequest,
      dev.headrace.v1.ListFailedRequestsResponse> getListFailedRequestsMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.ListFailedRequestsRequest, dev.headrace.v1.ListFailedRequestsResponse> getListFailedRequestsMethod;
    if ((getListFailedRequestsMethod = AnalyticsServiceGrpc.getListFailedRequestsMethod) == null) {
      synchronized (AnalyticsServiceGrpc.class) {
        if ((getListFailedRequestsMethod = AnalyticsServiceGrpc.getListFailedRequestsMethod) == null) {
          AnalyticsServiceGrpc.getListFailedRequestsMethod = getListFailedRequestsMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.ListFailedRequestsRequest, dev.headrace.v1.ListFailedRequestsResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListFailedRequests"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListFailedRequestsRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListFailedRequestsResponse.getDefaultInstance()))
              .setSchemaDescriptor(new AnalyticsServiceMethodDescriptorSupplier("ListFailedRequests"))
              .build();
        }
      }
    }
    return getListFailedRequestsMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.GetUsageRequest,
      dev.headrace.v1.GetUsageResponse> getGetUsageMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetUsage",
      requestType = dev.headrace.v1.GetUsageRequest.class,
      responseType = dev.headrace.v1.GetUsageResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.GetUsageRequest,
      dev.headrace.v1.GetUsageResponse> getGetUsageMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.GetUsageRequest, dev.headrace.v1.GetUsageResponse> getGetUsageMethod;
    if ((getGetUsageMethod = AnalyticsServiceGrpc.getGetUsageMethod) == null) {
      synchronized (AnalyticsServiceGrpc.class) {
        if ((getGetUsageMethod = AnalyticsServiceGrpc.getGetUsageMethod) == null) {
          AnalyticsServiceGrpc.getGetUsageMethod = getGetUsageMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.GetUsageRequest, dev.headrace.v1.GetUsageResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetUsage"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.GetUsageRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.GetUsageResponse.getDefaultInstance()))
              .setSchemaDescriptor(new AnalyticsServiceMethodDescriptorSupplier("GetUsage"))
              .build();
        }
      }
    }
    return getGetUsageMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static AnalyticsServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<AnalyticsServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<AnalyticsServiceStub>() {
        @java.lang.Override
        public AnalyticsServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new AnalyticsServiceStub(channel, callOptions);
        }
      };
    return AnalyticsServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static AnalyticsServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<AnalyticsServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<AnalyticsServiceBlockingV2Stub>() {
        @java.lang.Override
        public AnalyticsServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new AnalyticsServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return AnalyticsServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static AnalyticsServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<AnalyticsServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<AnalyticsServiceBlockingStub>() {
        @java.lang.Override
        public AnalyticsServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new AnalyticsServiceBlockingStub(channel, callOptions);
        }
      };
    return AnalyticsServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static AnalyticsServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<AnalyticsServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<AnalyticsServiceFutureStub>() {
        @java.lang.Override
        public AnalyticsServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new AnalyticsServiceFutureStub(channel, callOptions);
        }
      };
    return AnalyticsServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Adds up the records over a time range. Rates are in percent, 0 to 100.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * How often each provider and model succeeds. Default range: the last 7 days.
     * </pre>
     */
    default void listSuccessRates(dev.headrace.v1.ListSuccessRatesRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListSuccessRatesResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListSuccessRatesMethod(), responseObserver);
    }

    /**
     * <pre>
     * Load and speed of each provider, hour by hour, newest first. Default range: the last 24 hours.
     * </pre>
     */
    default void listHourlyPerformance(dev.headrace.v1.ListHourlyPerformanceRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListHourlyPerformanceResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListHourlyPerformanceMethod(), responseObserver);
    }

    /**
     * <pre>
     * Requests that failed, newest first. Default: the newest 50 of all times.
     * </pre>
     */
    default void listFailedRequests(dev.headrace.v1.ListFailedRequestsRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListFailedRequestsResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListFailedRequestsMethod(), responseObserver);
    }

    /**
     * <pre>
     * Tokens and cost, grouped as asked. Default range: the last 7 days.
     * </pre>
     */
    default void getUsage(dev.headrace.v1.GetUsageRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.GetUsageResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetUsageMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service AnalyticsService.
   * <pre>
   * Adds up the records over a time range. Rates are in percent, 0 to 100.
   * </pre>
   */
  public static abstract class AnalyticsServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return AnalyticsServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service AnalyticsService.
   * <pre>
   * Adds up the records over a time range. Rates are in percent, 0 to 100.
   * </pre>
   */
  public static final class AnalyticsServiceStub
      extends io.grpc.stub.AbstractAsyncStub<AnalyticsServiceStub> {
    private AnalyticsServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected AnalyticsServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new AnalyticsServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * How often each provider and model succeeds. Default range: the last 7 days.
     * </pre>
     */
    public void listSuccessRates(dev.headrace.v1.ListSuccessRatesRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListSuccessRatesResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListSuccessRatesMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Load and speed of each provider, hour by hour, newest first. Default range: the last 24 hours.
     * </pre>
     */
    public void listHourlyPerformance(dev.headrace.v1.ListHourlyPerformanceRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListHourlyPerformanceResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListHourlyPerformanceMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Requests that failed, newest first. Default: the newest 50 of all times.
     * </pre>
     */
    public void listFailedRequests(dev.headrace.v1.ListFailedRequestsRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListFailedRequestsResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListFailedRequestsMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Tokens and cost, grouped as asked. Default range: the last 7 days.
     * </pre>
     */
    public void getUsage(dev.headrace.v1.GetUsageRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.GetUsageResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetUsageMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service AnalyticsService.
   * <pre>
   * Adds up the records over a time range. Rates are in percent, 0 to 100.
   * </pre>
   */
  public static final class AnalyticsServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<AnalyticsServiceBlockingV2Stub> {
    private AnalyticsServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected AnalyticsServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new AnalyticsServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * How often each provider and model succeeds. Default range: the last 7 days.
     * </pre>
     */
    public dev.headrace.v1.ListSuccessRatesResponse listSuccessRates(dev.headrace.v1.ListSuccessRatesRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListSuccessRatesMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Load and speed of each provider, hour by hour, newest first. Default range: the last 24 hours.
     * </pre>
     */
    public dev.headrace.v1.ListHourlyPerformanceResponse listHourlyPerformance(dev.headrace.v1.ListHourlyPerformanceRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListHourlyPerformanceMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Requests that failed, newest first. Default: the newest 50 of all times.
     * </pre>
     */
    public dev.headrace.v1.ListFailedRequestsResponse listFailedRequests(dev.headrace.v1.ListFailedRequestsRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListFailedRequestsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Tokens and cost, grouped as asked. Default range: the last 7 days.
     * </pre>
     */
    public dev.headrace.v1.GetUsageResponse getUsage(dev.headrace.v1.GetUsageRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGetUsageMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service AnalyticsService.
   * <pre>
   * Adds up the records over a time range. Rates are in percent, 0 to 100.
   * </pre>
   */
  public static final class AnalyticsServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<AnalyticsServiceBlockingStub> {
    private AnalyticsServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected AnalyticsServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new AnalyticsServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * How often each provider and model succeeds. Default range: the last 7 days.
     * </pre>
     */
    public dev.headrace.v1.ListSuccessRatesResponse listSuccessRates(dev.headrace.v1.ListSuccessRatesRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListSuccessRatesMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Load and speed of each provider, hour by hour, newest first. Default range: the last 24 hours.
     * </pre>
     */
    public dev.headrace.v1.ListHourlyPerformanceResponse listHourlyPerformance(dev.headrace.v1.ListHourlyPerformanceRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListHourlyPerformanceMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Requests that failed, newest first. Default: the newest 50 of all times.
     * </pre>
     */
    public dev.headrace.v1.ListFailedRequestsResponse listFailedRequests(dev.headrace.v1.ListFailedRequestsRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListFailedRequestsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Tokens and cost, grouped as asked. Default range: the last 7 days.
     * </pre>
     */
    public dev.headrace.v1.GetUsageResponse getUsage(dev.headrace.v1.GetUsageRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetUsageMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service AnalyticsService.
   * <pre>
   * Adds up the records over a time range. Rates are in percent, 0 to 100.
   * </pre>
   */
  public static final class AnalyticsServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<AnalyticsServiceFutureStub> {
    private AnalyticsServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected AnalyticsServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new AnalyticsServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * How often each provider and model succeeds. Default range: the last 7 days.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.ListSuccessRatesResponse> listSuccessRates(
        dev.headrace.v1.ListSuccessRatesRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListSuccessRatesMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Load and speed of each provider, hour by hour, newest first. Default range: the last 24 hours.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.ListHourlyPerformanceResponse> listHourlyPerformance(
        dev.headrace.v1.ListHourlyPerformanceRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListHourlyPerformanceMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Requests that failed, newest first. Default: the newest 50 of all times.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.ListFailedRequestsResponse> listFailedRequests(
        dev.headrace.v1.ListFailedRequestsRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListFailedRequestsMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Tokens and cost, grouped as asked. Default range: the last 7 days.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.GetUsageResponse> getUsage(
        dev.headrace.v1.GetUsageRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetUsageMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_LIST_SUCCESS_RATES = 0;
  private static final int METHODID_LIST_HOURLY_PERFORMANCE = 1;
  private static final int METHODID_LIST_FAILED_REQUESTS = 2;
  private static final int METHODID_GET_USAGE = 3;

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
        case METHODID_LIST_SUCCESS_RATES:
          serviceImpl.listSuccessRates((dev.headrace.v1.ListSuccessRatesRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.ListSuccessRatesResponse>) responseObserver);
          break;
        case METHODID_LIST_HOURLY_PERFORMANCE:
          serviceImpl.listHourlyPerformance((dev.headrace.v1.ListHourlyPerformanceRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.ListHourlyPerformanceResponse>) responseObserver);
          break;
        case METHODID_LIST_FAILED_REQUESTS:
          serviceImpl.listFailedRequests((dev.headrace.v1.ListFailedRequestsRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.ListFailedRequestsResponse>) responseObserver);
          break;
        case METHODID_GET_USAGE:
          serviceImpl.getUsage((dev.headrace.v1.GetUsageRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.GetUsageResponse>) responseObserver);
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
        default:
          throw new AssertionError();
      }
    }
  }

  public static final io.grpc.ServerServiceDefinition bindService(AsyncService service) {
    return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
        .addMethod(
          getListSuccessRatesMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.ListSuccessRatesRequest,
              dev.headrace.v1.ListSuccessRatesResponse>(
                service, METHODID_LIST_SUCCESS_RATES)))
        .addMethod(
          getListHourlyPerformanceMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.ListHourlyPerformanceRequest,
              dev.headrace.v1.ListHourlyPerformanceResponse>(
                service, METHODID_LIST_HOURLY_PERFORMANCE)))
        .addMethod(
          getListFailedRequestsMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.ListFailedRequestsRequest,
              dev.headrace.v1.ListFailedRequestsResponse>(
                service, METHODID_LIST_FAILED_REQUESTS)))
        .addMethod(
          getGetUsageMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.GetUsageRequest,
              dev.headrace.v1.GetUsageResponse>(
                service, METHODID_GET_USAGE)))
        .build();
  }

  private static abstract class AnalyticsServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    AnalyticsServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return dev.headrace.v1.AnalyticsServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("AnalyticsService");
    }
  }

  private static final class AnalyticsServiceFileDescriptorSupplier
      extends AnalyticsServiceBaseDescriptorSupplier {
    AnalyticsServiceFileDescriptorSupplier() {}
  }

  private static final class AnalyticsServiceMethodDescriptorSupplier
      extends AnalyticsServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    AnalyticsServiceMethodDescriptorSupplier(java.lang.String methodName) {
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
      synchronized (AnalyticsServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new AnalyticsServiceFileDescriptorSupplier())
              .addMethod(getListSuccessRatesMethod())
              .addMethod(getListHourlyPerformanceMethod())
              .addMethod(getListFailedRequestsMethod())
              .addMethod(getGetUsageMethod())
              .build();
        }
      }
    }
    return result;
  }
}
