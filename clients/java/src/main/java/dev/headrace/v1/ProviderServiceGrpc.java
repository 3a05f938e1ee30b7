package dev.headrace.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Shows and changes providers. A change is effective for the next request, without a restart;
 * requests in flight go on with the settings they began with.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class ProviderServiceGrpc {

  private ProviderServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "headrace.v1.ProviderService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.ListProvidersRequest,
      dev.headrace.v1.ListProvidersResponse> getListProvidersMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListProviders",
      requestType = dev.headrace.v1.ListProvidersRequest.class,
      responseType = dev.headrace.v1.ListProvidersResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.ListProvidersRequest,
      dev.headrace.v1.ListProvidersResponse> getListProvidersMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.ListProvidersRequest, dev.headrace.v1.ListProvidersResponse> getListProvidersMethod;
    if ((getListProvidersMethod = ProviderServiceGrpc.getListProvidersMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getListProvidersMethod = ProviderServiceGrpc.getListProvidersMethod) == null) {
          ProviderServiceGrpc.getListProvidersMethod = getListProvidersMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.ListProvidersRequest, dev.headrace.v1.ListProvidersResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListProviders"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListProvidersRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListProvidersResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("ListProviders"))
              .build();
        }
      }
    }
    return getListProvidersMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.GetProviderRequest,
      dev.headrace.v1.GetProviderResponse> getGetProviderMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetProvider",
      requestType = dev.headrace.v1.GetProviderRequest.class,
      responseType = dev.headrace.v1.GetProviderResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.GetProviderRequest,
      dev.headrace.v1.GetProviderResponse> getGetProviderMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.GetProviderRequest, dev.headrace.v1.GetProviderResponse> getGetProviderMethod;
    if ((getGetProviderMethod = ProviderServiceGrpc.getGetProviderMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getGetProviderMethod = ProviderServiceGrpc.getGetProviderMethod) == null) {
          ProviderServiceGrpc.getGetProviderMethod = getGetProviderMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.GetProviderRequest, dev.headrace.v1.GetProviderResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetProvider"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.GetProviderRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.GetProviderResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("GetProvider"))
              .build();
        }
      }
    }
    return getGetProviderMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.CreateProviderRequest,
      dev.headrace.v1.CreateProviderResponse> getCreateProviderMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "CreateProvider",
      requestType = dev.headrace.v1.CreateProviderRequest.class,
      responseType = dev.headrace.v1.CreateProviderResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.CreateProviderRequest,
      dev.headrace.v1.CreateProviderResponse> getCreateProviderMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.CreateProviderRequest, dev.headrace.v1.CreateProviderResponse> getCreateProviderMethod;
    if ((getCreateProviderMethod = ProviderServiceGrpc.getCreateProviderMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getCreateProviderMethod = ProviderServiceGrpc.getCreateProviderMethod) == null) {
          ProviderServiceGrpc.getCreateProviderMethod = getCreateProviderMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.CreateProviderRequest, dev.headrace.v1.CreateProviderResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "CreateProvider"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.CreateProviderRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.CreateProviderResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("CreateProvider"))
              .build();
        }
      }
    }
    return getCreateProviderMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.UpdateProviderRequest,
      dev.headrace.v1.UpdateProviderResponse> getUpdateProviderMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "UpdateProvider",
      requestType = dev.headrace.v1.UpdateProviderRequest.class,
      responseType = dev.headrace.v1.UpdateProviderResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.UpdateProviderRequest,
      dev.headrace.v1.UpdateProviderResponse> getUpdateProviderMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.UpdateProviderRequest, dev.headrace.v1.UpdateProviderResponse> getUpdateProviderMethod;
    if ((getUpdateProviderMethod = ProviderServiceGrpc.getUpdateProviderMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getUpdateProviderMethod = ProviderServiceGrpc.getUpdateProviderMethod) == null) {
          ProviderServiceGrpc.getUpdateProviderMethod = getUpdateProviderMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.UpdateProviderRequest, dev.headrace.v1.UpdateProviderResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "UpdateProvider"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.UpdateProviderRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.UpdateProviderResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("UpdateProvider"))
              .build();
        }
      }
    }
    return getUpdateProviderMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.DeleteProviderRequest,
      dev.headrace.v1.DeleteProviderResponse> getDeleteProviderMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "DeleteProvider",
      requestType = dev.headrace.v1.DeleteProviderRequest.class,
      responseType = dev.headrace.v1.DeleteProviderResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.DeleteProviderRequest,
      dev.headrace.v1.DeleteProviderResponse> getDeleteProviderMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.DeleteProviderRequest, dev.headrace.v1.DeleteProviderResponse> getDeleteProviderMethod;
    if ((getDeleteProviderMethod = ProviderServiceGrpc.getDeleteProviderMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getDeleteProviderMethod = ProviderServiceGrpc.getDeleteProviderMethod) == null) {
          ProviderServiceGrpc.getDeleteProviderMethod = getDeleteProviderMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.DeleteProviderRequest, dev.headrace.v1.DeleteProviderResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "DeleteProvider"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.DeleteProviderRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.DeleteProviderResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("DeleteProvider"))
              .build();
        }
      }
    }
    return getDeleteProviderMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.CheckProviderRequest,
      dev.headrace.v1.CheckProviderResponse> getCheckProviderMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "CheckProvider",
      requestType = dev.headrace.v1.CheckProviderRequest.class,
      responseType = dev.headrace.v1.CheckProviderResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.CheckProviderRequest,
      dev.headrace.v1.CheckProviderResponse> getCheckProviderMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.CheckProviderRequest, dev.headrace.v1.CheckProviderResponse> getCheckProviderMethod;
    if ((getCheckProviderMethod = ProviderServiceGrpc.getCheckProviderMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getCheckProviderMethod = ProviderServiceGrpc.getCheckProviderMethod) == null) {
          ProviderServiceGrpc.getCheckProviderMethod = getCheckProviderMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.CheckProviderRequest, dev.headrace.v1.CheckProviderResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "CheckProvider"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.CheckProviderRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.CheckProviderResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("CheckProvider"))
              .build();
        }
      }
    }
    return getCheckProviderMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.ResetCircuitRequest,
      dev.headrace.v1.ResetCircuitResponse> getResetCircuitMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ResetCircuit",
      requestType = dev.headrace.v1.ResetCircuitRequest.class,
      responseType = dev.headrace.v1.ResetCircuitResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.ResetCircuitRequest,
      dev.headrace.v1.ResetCircuitResponse> getResetCircuitMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.ResetCircuitRequest, dev.headrace.v1.ResetCircuitResponse> getResetCircuitMethod;
    if ((getResetCircuitMethod = ProviderServiceGrpc.getResetCircuitMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getResetCircuitMethod = ProviderServiceGrpc.getResetCircuitMethod) == null) {
          ProviderServiceGrpc.getResetCircuitMethod = getResetCircuitMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.ResetCircuitRequest, dev.headrace.v1.ResetCircuitResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ResetCircuit"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ResetCircuitRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ResetCircuitResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("ResetCircuit"))
              .build();
        }
      }
    }
    return getResetCircuitMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.ListQuotasRequest,
      dev.headrace.v1.ListQuotasResponse> getListQuotasMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListQuotas",
      requestType = dev.headrace.v1.ListQuotasRequest.class,
      responseType = dev.headrace.v1.ListQuotasResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.ListQuotasRequest,
      dev.headrace.v1.ListQuotasResponse> getListQuotasMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.ListQuotasRequest, dev.headrace.v1.ListQuotasResponse> getListQuotasMethod;
    if ((getListQuotasMethod = ProviderServiceGrpc.getListQuotasMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getListQuotasMethod = ProviderServiceGrpc.getListQuotasMethod) == null) {
          ProviderServiceGrpc.getListQuotasMethod = getListQuotasMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.ListQuotasRequest, dev.headrace.v1.ListQuotasResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListQuotas"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListQuotasRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.ListQuotasResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("ListQuotas"))
              .build();
        }
      }
    }
    return getListQuotasMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.headrace.v1.WatchQuotasRequest,
      dev.headrace.v1.WatchQuotasResponse> getWatchQuotasMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "WatchQuotas",
      requestType = dev.headrace.v1.WatchQuotasRequest.class,
      responseType = dev.headrace.v1.WatchQuotasResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<dev.headrace.v1.WatchQuotasRequest,
      dev.headrace.v1.WatchQuotasResponse> getWatchQuotasMethod() {
    io.grpc.MethodDescriptor<dev.headrace.v1.WatchQuotasRequest, dev.headrace.v1.WatchQuotasResponse> getWatchQuotasMethod;
    if ((getWatchQuotasMethod = ProviderServiceGrpc.getWatchQuotasMethod) == null) {
      synchronized (ProviderServiceGrpc.class) {
        if ((getWatchQuotasMethod = ProviderServiceGrpc.getWatchQuotasMethod) == null) {
          ProviderServiceGrpc.getWatchQuotasMethod = getWatchQuotasMethod =
              io.grpc.MethodDescriptor.<dev.headrace.v1.WatchQuotasRequest, dev.headrace.v1.WatchQuotasResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "WatchQuotas"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.WatchQuotasRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.headrace.v1.WatchQuotasResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ProviderServiceMethodDescriptorSupplier("WatchQuotas"))
              .build();
        }
      }
    }
    return getWatchQuotasMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static ProviderServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ProviderServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ProviderServiceStub>() {
        @java.lang.Override
        public ProviderServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ProviderServiceStub(channel, callOptions);
        }
      };
    return ProviderServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static ProviderServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ProviderServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ProviderServiceBlockingV2Stub>() {
        @java.lang.Override
        public ProviderServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ProviderServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return ProviderServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static ProviderServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ProviderServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ProviderServiceBlockingStub>() {
        @java.lang.Override
        public ProviderServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ProviderServiceBlockingStub(channel, callOptions);
        }
      };
    return ProviderServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static ProviderServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ProviderServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ProviderServiceFutureStub>() {
        @java.lang.Override
        public ProviderServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ProviderServiceFutureStub(channel, callOptions);
        }
      };
    return ProviderServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Shows and changes providers. A change is effective for the next request, without a restart;
   * requests in flight go on with the settings they began with.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * All providers, by priority, then name.
     * </pre>
     */
    default void listProviders(dev.headrace.v1.ListProvidersRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListProvidersResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListProvidersMethod(), responseObserver);
    }

    /**
     * <pre>
     * One provider.
     * </pre>
     */
    default void getProvider(dev.headrace.v1.GetProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.GetProviderResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetProviderMethod(), responseObserver);
    }

    /**
     * <pre>
     * Adds a provider.
     * </pre>
     */
    default void createProvider(dev.headrace.v1.CreateProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.CreateProviderResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getCreateProviderMethod(), responseObserver);
    }

    /**
     * <pre>
     * Changes the fields of a provider that the mask names.
     * </pre>
     */
    default void updateProvider(dev.headrace.v1.UpdateProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.UpdateProviderResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getUpdateProviderMethod(), responseObserver);
    }

    /**
     * <pre>
     * Removes a provider, with what was counted of its limits. Refused with FAILED_PRECONDITION while
     * records refer to it, running requests may call it, or another provider names it as a fallback:
     * disable it instead.
     * </pre>
     */
    default void deleteProvider(dev.headrace.v1.DeleteProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.DeleteProviderResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getDeleteProviderMethod(), responseObserver);
    }

    /**
     * <pre>
     * Calls the provider now and says whether it answers, and how fast.
     * </pre>
     */
    default void checkProvider(dev.headrace.v1.CheckProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.CheckProviderResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getCheckProviderMethod(), responseObserver);
    }

    /**
     * <pre>
     * Closes the provider's circuit breaker by hand, and forgets how its last calls went.
     * </pre>
     */
    default void resetCircuit(dev.headrace.v1.ResetCircuitRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ResetCircuitResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getResetCircuitMethod(), responseObserver);
    }

    /**
     * <pre>
     * What is used and left of the limits that are set now. Limits are counted per provider and model:
     * one that no request has met yet has no quota to show.
     * </pre>
     */
    default void listQuotas(dev.headrace.v1.ListQuotasRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListQuotasResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListQuotasMethod(), responseObserver);
    }

    /**
     * <pre>
     * The same, as it changes: all quotas at once, then all of them again whenever one has changed, as
     * seen once a second. Ends with UNAVAILABLE when the service stops.
     * </pre>
     */
    default void watchQuotas(dev.headrace.v1.WatchQuotasRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.WatchQuotasResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getWatchQuotasMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service ProviderService.
   * <pre>
   * Shows and changes providers. A change is effective for the next request, without a restart;
   * requests in flight go on with the settings they began with.
   * </pre>
   */
  public static abstract class ProviderServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return ProviderServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service ProviderService.
   * <pre>
   * Shows and changes providers. A change is effective for the next request, without a restart;
   * requests in flight go on with the settings they began with.
   * </pre>
   */
  public static final class ProviderServiceStub
      extends io.grpc.stub.AbstractAsyncStub<ProviderServiceStub> {
    private ProviderServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ProviderServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ProviderServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * All providers, by priority, then name.
     * </pre>
     */
    public void listProviders(dev.headrace.v1.ListProvidersRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListProvidersResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListProvidersMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * One provider.
     * </pre>
     */
    public void getProvider(dev.headrace.v1.GetProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.GetProviderResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetProviderMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Adds a provider.
     * </pre>
     */
    public void createProvider(dev.headrace.v1.CreateProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.CreateProviderResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getCreateProviderMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Changes the fields of a provider that the mask names.
     * </pre>
     */
    public void updateProvider(dev.headrace.v1.UpdateProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.UpdateProviderResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getUpdateProviderMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Removes a provider, with what was counted of its limits. Refused with FAILED_PRECONDITION while
     * records refer to it, running requests may call it, or another provider names it as a fallback:
     * disable it instead.
     * </pre>
     */
    public void deleteProvider(dev.headrace.v1.DeleteProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.DeleteProviderResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getDeleteProviderMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Calls the provider now and says whether it answers, and how fast.
     * </pre>
     */
    public void checkProvider(dev.headrace.v1.CheckProviderRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.CheckProviderResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getCheckProviderMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Closes the provider's circuit breaker by hand, and forgets how its last calls went.
     * </pre>
     */
    public void resetCircuit(dev.headrace.v1.ResetCircuitRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ResetCircuitResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getResetCircuitMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * What is used and left of the limits that are set now. Limits are counted per provider and model:
     * one that no request has met yet has no quota to show.
     * </pre>
     */
    public void listQuotas(dev.headrace.v1.ListQuotasRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.ListQuotasResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListQuotasMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * The same, as it changes: all quotas at once, then all of them again whenever one has changed, as
     * seen once a second. Ends with UNAVAILABLE when the service stops.
     * </pre>
     */
    public void watchQuotas(dev.headrace.v1.WatchQuotasRequest request,
        io.grpc.stub.StreamObserver<dev.headrace.v1.WatchQuotasResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getWatchQuotasMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service ProviderService.
   * <pre>
   * Shows and changes providers. A change is effective for the next request, without a restart;
   * requests in flight go on with the settings they began with.
   * </pre>
   */
  public static final class ProviderServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<ProviderServiceBlockingV2Stub> {
    private ProviderServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ProviderServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ProviderServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * All providers, by priority, then name.
     * </pre>
     */
    public dev.headrace.v1.ListProvidersResponse listProviders(dev.headrace.v1.ListProvidersRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListProvidersMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * One provider.
     * </pre>
     */
    public dev.headrace.v1.GetProviderResponse getProvider(dev.headrace.v1.GetProviderRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGetProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Adds a provider.
     * </pre>
     */
    public dev.headrace.v1.CreateProviderResponse createProvider(dev.headrace.v1.CreateProviderRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getCreateProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Changes the fields of a provider that the mask names.
     * </pre>
     */
    public dev.headrace.v1.UpdateProviderResponse updateProvider(dev.headrace.v1.UpdateProviderRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getUpdateProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Removes a provider, with what was counted of its limits. Refused with FAILED_PRECONDITION while
     * records refer to it, running requests may call it, or another provider names it as a fallback:
     * disable it instead.
     * </pre>
     */
    public dev.headrace.v1.DeleteProviderResponse deleteProvider(dev.headrace.v1.DeleteProviderRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getDeleteProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Calls the provider now and says whether it answers, and how fast.
     * </pre>
     */
    public dev.headrace.v1.CheckProviderResponse checkProvider(dev.headrace.v1.CheckProviderRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getCheckProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Closes the provider's circuit breaker by hand, and forgets how its last calls went.
     * </pre>
     */
    public dev.headrace.v1.ResetCircuitResponse resetCircuit(dev.headrace.v1.ResetCircuitRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getResetCircuitMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * What is used and left of the limits that are set now. Limits are counted per provider and model:
     * one that no request has met yet has no quota to show.
     * </pre>
     */
    public dev.headrace.v1.ListQuotasResponse listQuotas(dev.headrace.v1.ListQuotasRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListQuotasMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The same, as it changes: all quotas at once, then all of them again whenever one has changed, as
     * seen once a second. Ends with UNAVAILABLE when the service stops.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<?, dev.headrace.v1.WatchQuotasResponse>
        watchQuotas(dev.headrace.v1.WatchQuotasRequest request) {
      return io.grpc.stub.ClientCalls.blockingV2ServerStreamingCall(
          getChannel(), getWatchQuotasMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service ProviderService.
   * <pre>
   * Shows and changes providers. A change is effective for the next request, without a restart;
   * requests in flight go on with the settings they began with.
   * </pre>
   */
  public static final class ProviderServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<ProviderServiceBlockingStub> {
    private ProviderServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ProviderServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ProviderServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * All providers, by priority, then name.
     * </pre>
     */
    public dev.headrace.v1.ListProvidersResponse listProviders(dev.headrace.v1.ListProvidersRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListProvidersMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * One provider.
     * </pre>
     */
    public dev.headrace.v1.GetProviderResponse getProvider(dev.headrace.v1.GetProviderRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Adds a provider.
     * </pre>
     */
    public dev.headrace.v1.CreateProviderResponse createProvider(dev.headrace.v1.CreateProviderRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getCreateProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Changes the fields of a provider that the mask names.
     * </pre>
     */
    public dev.headrace.v1.UpdateProviderResponse updateProvider(dev.headrace.v1.UpdateProviderRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getUpdateProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Removes a provider, with what was counted of its limits. Refused with FAILED_PRECONDITION while
     * records refer to it, running requests may call it, or another provider names it as a fallback:
     * disable it instead.
     * </pre>
     */
    public dev.headrace.v1.DeleteProviderResponse deleteProvider(dev.headrace.v1.DeleteProviderRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getDeleteProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Calls the provider now and says whether it answers, and how fast.
     * </pre>
     */
    public dev.headrace.v1.CheckProviderResponse checkProvider(dev.headrace.v1.CheckProviderRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getCheckProviderMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Closes the provider's circuit breaker by hand, and forgets how its last calls went.
     * </pre>
     */
    public dev.headrace.v1.ResetCircuitResponse resetCircuit(dev.headrace.v1.ResetCircuitRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getResetCircuitMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * What is used and left of the limits that are set now. Limits are counted per provider and model:
     * one that no request has met yet has no quota to show.
     * </pre>
     */
    public dev.headrace.v1.ListQuotasResponse listQuotas(dev.headrace.v1.ListQuotasRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListQuotasMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The same, as it changes: all quotas at once, then all of them again whenever one has changed, as
     * seen once a second. Ends with UNAVAILABLE when the service stops.
     * </pre>
     */
    public java.util.Iterator<dev.headrace.v1.WatchQuotasResponse> watchQuotas(
        dev.headrace.v1.WatchQuotasRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getWatchQuotasMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service ProviderService.
   * <pre>
   * Shows and changes providers. A change is effective for the next request, without a restart;
   * requests in flight go on with the settings they began with.
   * </pre>
   */
  public static final class ProviderServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<ProviderServiceFutureStub> {
    private ProviderServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ProviderServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ProviderServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * All providers, by priority, then name.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.ListProvidersResponse> listProviders(
        dev.headrace.v1.ListProvidersRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListProvidersMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * One provider.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.GetProviderResponse> getProvider(
        dev.headrace.v1.GetProviderRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetProviderMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Adds a provider.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.CreateProviderResponse> createProvider(
        dev.headrace.v1.CreateProviderRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getCreateProviderMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Changes the fields of a provider that the mask names.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.UpdateProviderResponse> updateProvider(
        dev.headrace.v1.UpdateProviderRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getUpdateProviderMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Removes a provider, with what was counted of its limits. Refused with FAILED_PRECONDITION while
     * records refer to it, running requests may call it, or another provider names it as a fallback:
     * disable it instead.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.DeleteProviderResponse> deleteProvider(
        dev.headrace.v1.DeleteProviderRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getDeleteProviderMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Calls the provider now and says whether it answers, and how fast.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.CheckProviderResponse> checkProvider(
        dev.headrace.v1.CheckProviderRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getCheckProviderMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Closes the provider's circuit breaker by hand, and forgets how its last calls went.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.ResetCircuitResponse> resetCircuit(
        dev.headrace.v1.ResetCircuitRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getResetCircuitMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * What is used and left of the limits that are set now. Limits are counted per provider and model:
     * one that no request has met yet has no quota to show.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.headrace.v1.ListQuotasResponse> listQuotas(
        dev.headrace.v1.ListQuotasRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListQuotasMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_LIST_PROVIDERS = 0;
  private static final int METHODID_GET_PROVIDER = 1;
  private static final int METHODID_CREATE_PROVIDER = 2;
  private static final int METHODID_UPDATE_PROVIDER = 3;
  private static final int METHODID_DELETE_PROVIDER = 4;
  private static final int METHODID_CHECK_PROVIDER = 5;
  private static final int METHODID_RESET_CIRCUIT = 6;
  private static final int METHODID_LIST_QUOTAS = 7;
  private static final int METHODID_WATCH_QUOTAS = 8;

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
        case METHODID_LIST_PROVIDERS:
          serviceImpl.listProviders((dev.headrace.v1.ListProvidersRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.ListProvidersResponse>) responseObserver);
          break;
        case METHODID_GET_PROVIDER:
          serviceImpl.getProvider((dev.headrace.v1.GetProviderRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.GetProviderResponse>) responseObserver);
          break;
        case METHODID_CREATE_PROVIDER:
          serviceImpl.createProvider((dev.headrace.v1.CreateProviderRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.CreateProviderResponse>) responseObserver);
          break;
        case METHODID_UPDATE_PROVIDER:
          serviceImpl.updateProvider((dev.headrace.v1.UpdateProviderRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.UpdateProviderResponse>) responseObserver);
          break;
        case METHODID_DELETE_PROVIDER:
          serviceImpl.deleteProvider((dev.headrace.v1.DeleteProviderRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.DeleteProviderResponse>) responseObserver);
          break;
        case METHODID_CHECK_PROVIDER:
          serviceImpl.checkProvider((dev.headrace.v1.CheckProviderRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.CheckProviderResponse>) responseObserver);
          break;
        case METHODID_RESET_CIRCUIT:
          serviceImpl.resetCircuit((dev.headrace.v1.ResetCircuitRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.ResetCircuitResponse>) responseObserver);
          break;
        case METHODID_LIST_QUOTAS:
          serviceImpl.listQuotas((dev.headrace.v1.ListQuotasRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.ListQuotasResponse>) responseObserver);
          break;
        case METHODID_WATCH_QUOTAS:
          serviceImpl.watchQuotas((dev.headrace.v1.WatchQuotasRequest) request,
              (io.grpc.stub.StreamObserver<dev.headrace.v1.WatchQuotasResponse>) responseObserver);
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
          getListProvidersMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.ListProvidersRequest,
              dev.headrace.v1.ListProvidersResponse>(
                service, METHODID_LIST_PROVIDERS)))
        .addMethod(
          getGetProviderMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.GetProviderRequest,
              dev.headrace.v1.GetProviderResponse>(
                service, METHODID_GET_PROVIDER)))
        .addMethod(
          getCreateProviderMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.CreateProviderRequest,
              dev.headrace.v1.CreateProviderResponse>(
                service, METHODID_CREATE_PROVIDER)))
        .addMethod(
          getUpdateProviderMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.UpdateProviderRequest,
              dev.headrace.v1.UpdateProviderResponse>(
                service, METHODID_UPDATE_PROVIDER)))
        .addMethod(
          getDeleteProviderMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.DeleteProviderRequest,
              dev.headrace.v1.DeleteProviderResponse>(
                service, METHODID_DELETE_PROVIDER)))
        .addMethod(
          getCheckProviderMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.CheckProviderRequest,
              dev.headrace.v1.CheckProviderResponse>(
                service, METHODID_CHECK_PROVIDER)))
        .addMethod(
          getResetCircuitMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.ResetCircuitRequest,
              dev.headrace.v1.ResetCircuitResponse>(
                service, METHODID_RESET_CIRCUIT)))
        .addMethod(
          getListQuotasMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.headrace.v1.ListQuotasRequest,
              dev.headrace.v1.ListQuotasResponse>(
                service, METHODID_LIST_QUOTAS)))
        .addMethod(
          getWatchQuotasMethod(),
          io.grpc.stub.ServerCalls.asyncServerStreamingCall(
            new MethodHandlers<
              dev.headrace.v1.WatchQuotasRequest,
              dev.headrace.v1.WatchQuotasResponse>(
                service, METHODID_WATCH_QUOTAS)))
        .build();
  }

  private static abstract class ProviderServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    ProviderServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return dev.headrace.v1.ProviderServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("ProviderService");
    }
  }

  private static final class ProviderServiceFileDescriptorSupplier
      extends ProviderServiceBaseDescriptorSupplier {
    ProviderServiceFileDescriptorSupplier() {}
  }

  private static final class ProviderServiceMethodDescriptorSupplier
      extends ProviderServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    ProviderServiceMethodDescriptorSupplier(java.lang.String methodName) {
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
      synchronized (ProviderServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new ProviderServiceFileDescriptorSupplier())
              .addMethod(getListProvidersMethod())
              .addMethod(getGetProviderMethod())
              .addMethod(getCreateProviderMethod())
              .addMethod(getUpdateProviderMethod())
              .addMethod(getDeleteProviderMethod())
              .addMethod(getCheckProviderMethod())
              .addMethod(getResetCircuitMethod())
              .addMethod(getListQuotasMethod())
              .addMethod(getWatchQuotasMethod())
              .build();
        }
      }
    }
    return result;
  }
}
