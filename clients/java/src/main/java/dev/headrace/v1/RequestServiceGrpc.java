package dev.headrace.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Shows, watches and cancels requests.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class RequestServiceGrpc {

  private RequestServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "headrace.v1.RequestService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.GetRequestRequest,
      dev.headrace.v1.GetRequestResponse> getGetRequestMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetRequest",
      requestType = dev.headrace.v1.GetRequestRequest.class,
      responseType = dev.headrace.v1.GetRequestResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.GetRequestRequest,
      dev.headrace.v1.GetRequestResponse> getGetRequestMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.GetRequestRequest, dev.headrace.v1.GetRequestResponse> getGetRequestMethod;
    if ((getGetRequestMethod = RequestServiceGrpc.getGetRequestMethod) == null) {
      synchronized (RequestServiceGrpc.class) {
        if ((getGetRequestMethod = RequestServiceGrpc.getGetRequestMethod) == null) {
          RequestServiceGrpc.getGetRequestMethod = getGetRequestMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.GetRequestRequest, dev.headrace.v1.GetRequestResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetRequest"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.GetRequestRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.GetRequestResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RequestServiceMethodDescriptorSupplier("GetRequest"))
              .build();
        }
      }
    }
    return getGetRequestMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.ListRequestsRequest,
      dev.headrace.v1.ListRequestsResponse> getListRequestsMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListRequests",
      requestType = dev.headrace.v1.ListRequestsRequest.class,
      responseType = dev.headrace.v1.ListRequestsResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.ListRequestsRequest,
      dev.headrace.v1.ListRequestsResponse> getListRequestsMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.ListRequestsRequest, dev.headrace.v1.ListRequestsResponse> getListRequestsMethod;
    if ((getListRequestsMethod = RequestServiceGrpc.getListRequestsMethod) == null) {
      synchronized (RequestServiceGrpc.class) {
        if ((getListRequestsMethod = RequestServiceGrpc.getListRequestsMethod) == null) {
          RequestServiceGrpc.getListRequestsMethod = getListRequestsMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.ListRequestsRequest, dev.headrace.v1.ListRequestsResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListRequests"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListRequestsRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListRequestsResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RequestServiceMethodDescriptorSupplier("ListRequests"))
              .build();
        }
      }
    }
    return getListRequestsMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.WatchRequestRequest,
      dev.headrace.v1.WatchRequestResponse> getWatchRequestMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "WatchRequest",
      requestType = dev.headrace.v1.WatchRequestRequest.class,
      responseType = dev.headrace.v1.WatchRequestResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.WatchRequestRequest,
      dev.headrace.v1.WatchRequestResponse> getWatchRequestMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.WatchRequestRequest, dev.headrace.v1.WatchRequestResponse> getWatchRequestMethod;
    if ((getWatchRequestMethod = RequestServiceGrpc.getWatchRequestMethod) == null) {
      synchronized (RequestServiceGrpc.class) {
        if ((getWatchRequestMethod = RequestServiceGrpc.getWatchRequestMethod) == null) {
          RequestServiceGrpc.getWatchRequestMethod = getWatchRequestMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.WatchRequestRequest, dev.headrace.v1.WatchRequestResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "WatchRequest"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.WatchRequestRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.WatchRequestResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RequestServiceMethodDescriptorSupplier("WatchRequest"))
              .build();
        }
      }
    }
    return getWatchRequestMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.CancelRequestRequest,
      dev.headrace.v1.CancelRequestResponse> getCancelRequestMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "CancelRequest",
      requestType = dev.headrace.v1.CancelRequestRequest.class,
      responseType = dev.headrace.v1.CancelRequestResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.CancelRequestRequest,
      dev.headrace.v1.CancelRequestResponse> getCancelRequestMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.CancelRequestRequest, dev.headrace.v1.CancelRequestResponse> getCancelRequestMethod;
    if ((getCancelRequestMethod = RequestServiceGrpc.getCancelRequestMethod) == null) {
      synchronized (RequestServiceGrpc.class) {
        if ((getCancelRequestMethod = RequestServiceGrpc.getCancelRequestMethod) == null) {
          RequestServiceGrpc.getCancelRequestMethod = getCancelRequestMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.CancelRequestRequest, dev.headrace.v1.CancelRequestResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "CancelRequest"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.CancelRequestRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.CancelRequestResponse.getDefaultInstance()))
              .setSchemaDescriptor(new RequestServiceMethodDescriptorSupplier("CancelRequest"))
              .build();
        }
      }
    }
    return getCancelRequestMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static RequestServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<RequestServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<RequestServiceStub>() {
        @java.lang.Override
        public RequestServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new RequestServiceStub(channel, callOptions);
        }
      };
    return RequestServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static RequestServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<RequestServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<RequestServiceBlockingV2Stub>() {
        @java.lang.Override
        public RequestServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new RequestServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return RequestServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static RequestServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<RequestServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<RequestServiceBlockingStub>() {
        @java.lang.Override
        public RequestServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new RequestServiceBlockingStub(channel, callOptions);
        }
      };
    return RequestServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static RequestServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<RequestServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<RequestServiceFutureStub>() {
        @java.lang.Override
        public RequestServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new RequestServiceFutureStub(channel, callOptions);
        }
      };
    return RequestServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Shows, watches and cancels requests.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * One request.
     * </pre>
     */
    default void getRequest(dev.headrace.v1.GetRequestRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.GetRequestResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetRequestMethod(), responseObserver);
    }

    /**
     * <pre>
     * Requests, newest first.
     * </pre>
     */
    default void listRequests(dev.headrace.v1.ListRequestsRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListRequestsResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListRequestsMethod(), responseObserver);
    }

    /**
     * <pre>
     * The transitions of one request: history first, then live, until it has ended.
     * </pre>
     */
    default void watchRequest(dev.headrace.v1.WatchRequestRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.WatchRequestResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getWatchRequestMethod(), responseObserver);
    }

    /**
     * <pre>
     * Cancels a request. Answers when it has ended; a request that has ended stays as it is.
     * </pre>
     */
    default void cancelRequest(dev.headrace.v1.CancelRequestRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.CancelRequestResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getCancelRequestMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service RequestService.
   * <pre>
   * Shows, watches and cancels requests.
   * </pre>
   */
  public static abstract class RequestServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return RequestServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service RequestService.
   * <pre>
   * Shows, watches and cancels requests.
   * </pre>
   */
  public static final class RequestServiceStub
      extends io.grpc.stub.AbstractAsyncStub<RequestServiceStub> {
    private RequestServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected RequestServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new RequestServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * One request.
     * </pre>
     */
    public void getRequest(dev.headrace.v1.GetRequestRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.GetRequestResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetRequestMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Requests, newest first.
     * </pre>
     */
    public void listRequests(dev.headrace.v1.ListRequestsRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListRequestsResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListRequestsMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * The transitions of one request: history first, then live, until it has ended.
     * </pre>
     */
    public void watchRequest(dev.headrace.v1.WatchRequestRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.WatchRequestResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getWatchRequestMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Cancels a request. Answers when it has ended; a request that has ended stays as it is.
     * </pre>
     */
    public void cancelRequest(dev.headrace.v1.CancelRequestRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.CancelRequestResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getCancelRequestMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service RequestService.
   * <pre>
   * Shows, watches and cancels requests.
   * </pre>
   */
  public static final class RequestServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<RequestServiceBlockingV2Stub> {
    private RequestServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected RequestServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new RequestServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * One request.
     * </pre>
     */
    public dev.headrace.v1.GetRequestResponse getRequest(dev.headrace.v1.GetRequestRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGetRequestMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Requests, newest first.
     * </pre>
     */
    public dev.headrace.v1.ListRequestsResponse listRequests(dev.headrace.v1.ListRequestsRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListRequestsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The transitions of one request: history first, then live, until it has ended.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<?, dev.headrace.v1.WatchRequestResponse>
        watchRequest(dev.headrace.v1.WatchRequestRequest request) {
      return io.grpc.stub.ClientCalls.blockingV2ServerStreamingCall(
          getChannel(), getWatchRequestMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Cancels a request. Answers when it has ended; a request that has ended stays as it is.
     * </pre>
     */
    public dev.headrace.v1.CancelRequestResponse cancelRequest(dev.headrace.v1.CancelRequestRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getCancelRequestMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service RequestService.
   * <pre>
   * Shows, watches and cancels requests.
   * </pre>
   */
  public static final class RequestServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<RequestServiceBlockingStub> {
    private RequestServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected RequestServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new RequestServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * One request.
     * </pre>
     */
    public dev.headrace.v1.GetRequestResponse getRequest(dev.headrace.v1.GetRequestRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetRequestMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Requests, newest first.
     * </pre>
     */
    public dev.headrace.v1.ListRequestsResponse listRequests(dev.headrace.v1.ListRequestsRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListRequestsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The transitions of one request: history first, then live, until it has ended.
     * </pre>
     */
    public java.util.Iterator<dev.headrace.v1.WatchRequestResponse> watchRequest(
        dev.headrace.v1.WatchRequestRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getWatchRequestMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Cancels a request. Answers when it has ended; a request that has ended stays as it is.
     * </pre>
     */
    public dev.headrace.v1.CancelRequestResponse cancelRequest(dev.headrace.v1.CancelRequestRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getCancelRequestMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service RequestService.
   * <pre>
   * Shows, watches and cancels requests.
   * </pre>
   */
  public static final class RequestServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<RequestServiceFutureStub> {
    private RequestServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected RequestServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new RequestServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * One request.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.GetRequestResponse> getRequest(
        dev.headrace.v1.GetRequestRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetRequestMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Requests, newest first.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.ListRequestsResponse> listRequests(
        dev.headrace.v1.ListRequestsRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListRequestsMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Cancels a request. Answers when it has ended; a request that has ended stays as it is.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.CancelRequestResponse> cancelRequest(
        dev.headrace.v1.CancelRequestRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getCancelRequestMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_GET_REQUEST = 0;
  private static final int METHODID_LIST_REQUESTS = 1;
  private static final int METHODID_WATCH_REQUEST = 2;
  private static final int METHODID_CANCEL_REQUEST = 3;

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
        case METHODID_GET_REQUEST:
          serviceImpl.getRequest((dev.headrace.v1.GetRequestRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.GetRequestResponse>) responseObserver);
          break;
        case METHODID_LIST_REQUESTS:
          serviceImpl.listRequests((dev.headrace.v1.ListRequestsRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.ListRequestsResponse>) responseObserver);
          break;
        case METHODID_WATCH_REQUEST:
          serviceImpl.watchRequest((dev.headrace.v1.WatchRequestRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.WatchRequestResponse>) responseObserver);
          break;
        case METHODID_CANCEL_REQUEST:
          serviceImpl.cancelRequest((dev.headrace.v1.CancelRequestRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.CancelRequestResponse>) responseObserver);
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
          getGetRequestMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.GetRequestRequest,
              dev.headrace.v1.GetRequestResponse>(
                service, METHODID_GET_REQUEST)))
        .addMethod(
          getListRequestsMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.ListRequestsRequest,
              dev.headrace.v1.ListRequestsResponse>(
                service, METHODID_LIST_REQUESTS)))
        .addMethod(
          getWatchRequestMethod(),
          io.grpc.stub.ServerCalls.asyncServerStreamingCall(
            new MethodHandlers<
              dev.headrace.v1.WatchRequestRequest,
              dev.headrace.v1.WatchRequestResponse>(
                service, METHODID_WATCH_REQUEST)))
        .addMethod(
          getCancelRequestMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.CancelRequestRequest,
              dev.headrace.v1.CancelRequestResponse>(
                service, METHODID_CANCEL_REQUEST)))
        .build();
  }

  private static abstract class RequestServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    RequestServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return dev.headrace.v1.RequestServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("RequestService");
    }
  }

  private static final class RequestServiceFileDescriptorSupplier
      extends RequestServiceBaseDescriptorSupplier {
    RequestServiceFileDescriptorSupplier() {}
  }

  private static final class RequestServiceMethodDescriptorSupplier
      extends RequestServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    RequestServiceMethodDescriptorSupplier(java.lang.String methodName) {
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
      synchronized (RequestServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new RequestServiceFileDescriptorSupplier())
              .addMethod(getGetRequestMethod())
              .addMethod(getListRequestsMethod())
              .addMethod(getWatchRequestMethod())
              .addMethod(getCancelRequestMethod())
              .build();
        }
      }
    }
    return result;
  }
}
