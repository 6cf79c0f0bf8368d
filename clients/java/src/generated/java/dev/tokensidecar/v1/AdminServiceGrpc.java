package dev.tokensidecar.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Keys and revocations, for operators. Registered on the admin plane alone.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class AdminServiceGrpc {

  private AdminServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "tokensidecar.v1.AdminService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.ListKeysRequest,
      dev.tokensidecar.v1.ListKeysResponse> getListKeysMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListKeys",
      requestType = dev.tokensidecar.v1.ListKeysRequest.class,
      responseType = dev.tokensidecar.v1.ListKeysResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.ListKeysRequest,
      dev.tokensidecar.v1.ListKeysResponse> getListKeysMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.ListKeysRequest, dev.tokensidecar.v1.ListKeysResponse> getListKeysMethod;
    if ((getListKeysMethod = AdminServiceGrpc.getListKeysMethod) == null) {
      synchronized (AdminServiceGrpc.class) {
        if ((getListKeysMethod = AdminServiceGrpc.getListKeysMethod) == null) {
          AdminServiceGrpc.getListKeysMethod = getListKeysMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.ListKeysRequest, dev.tokensidecar.v1.ListKeysResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListKeys"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.ListKeysRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.ListKeysResponse.getDefaultInstance()))
              .setSchemaDescriptor(new AdminServiceMethodDescriptorSupplier("ListKeys"))
              .build();
        }
      }
    }
    return getListKeysMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeKeysRequest,
      dev.tokensidecar.v1.RevokeKeysResponse> getRevokeKeysMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "RevokeKeys",
      requestType = dev.tokensidecar.v1.RevokeKeysRequest.class,
      responseType = dev.tokensidecar.v1.RevokeKeysResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeKeysRequest,
      dev.tokensidecar.v1.RevokeKeysResponse> getRevokeKeysMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeKeysRequest, dev.tokensidecar.v1.RevokeKeysResponse> getRevokeKeysMethod;
    if ((getRevokeKeysMethod = AdminServiceGrpc.getRevokeKeysMethod) == null) {
      synchronized (AdminServiceGrpc.class) {
        if ((getRevokeKeysMethod = AdminServiceGrpc.getRevokeKeysMethod) == null) {
          AdminServiceGrpc.getRevokeKeysMethod = getRevokeKeysMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.RevokeKeysRequest, dev.tokensidecar.v1.RevokeKeysResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "RevokeKeys"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RevokeKeysRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RevokeKeysResponse.getDefaultInstance()))
              .setSchemaDescriptor(new AdminServiceMethodDescriptorSupplier("RevokeKeys"))
              .build();
        }
      }
    }
    return getRevokeKeysMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeSubjectRequest,
      dev.tokensidecar.v1.RevokeSubjectResponse> getRevokeSubjectMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "RevokeSubject",
      requestType = dev.tokensidecar.v1.RevokeSubjectRequest.class,
      responseType = dev.tokensidecar.v1.RevokeSubjectResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeSubjectRequest,
      dev.tokensidecar.v1.RevokeSubjectResponse> getRevokeSubjectMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeSubjectRequest, dev.tokensidecar.v1.RevokeSubjectResponse> getRevokeSubjectMethod;
    if ((getRevokeSubjectMethod = AdminServiceGrpc.getRevokeSubjectMethod) == null) {
      synchronized (AdminServiceGrpc.class) {
        if ((getRevokeSubjectMethod = AdminServiceGrpc.getRevokeSubjectMethod) == null) {
          AdminServiceGrpc.getRevokeSubjectMethod = getRevokeSubjectMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.RevokeSubjectRequest, dev.tokensidecar.v1.RevokeSubjectResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "RevokeSubject"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RevokeSubjectRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RevokeSubjectResponse.getDefaultInstance()))
              .setSchemaDescriptor(new AdminServiceMethodDescriptorSupplier("RevokeSubject"))
              .build();
        }
      }
    }
    return getRevokeSubjectMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeTokenIdRequest,
      dev.tokensidecar.v1.RevokeTokenIdResponse> getRevokeTokenIdMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "RevokeTokenId",
      requestType = dev.tokensidecar.v1.RevokeTokenIdRequest.class,
      responseType = dev.tokensidecar.v1.RevokeTokenIdResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeTokenIdRequest,
      dev.tokensidecar.v1.RevokeTokenIdResponse> getRevokeTokenIdMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeTokenIdRequest, dev.tokensidecar.v1.RevokeTokenIdResponse> getRevokeTokenIdMethod;
    if ((getRevokeTokenIdMethod = AdminServiceGrpc.getRevokeTokenIdMethod) == null) {
      synchronized (AdminServiceGrpc.class) {
        if ((getRevokeTokenIdMethod = AdminServiceGrpc.getRevokeTokenIdMethod) == null) {
          AdminServiceGrpc.getRevokeTokenIdMethod = getRevokeTokenIdMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.RevokeTokenIdRequest, dev.tokensidecar.v1.RevokeTokenIdResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "RevokeTokenId"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RevokeTokenIdRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RevokeTokenIdResponse.getDefaultInstance()))
              .setSchemaDescriptor(new AdminServiceMethodDescriptorSupplier("RevokeTokenId"))
              .build();
        }
      }
    }
    return getRevokeTokenIdMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static AdminServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<AdminServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<AdminServiceStub>() {
        @java.lang.Override
        public AdminServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new AdminServiceStub(channel, callOptions);
        }
      };
    return AdminServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static AdminServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<AdminServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<AdminServiceBlockingV2Stub>() {
        @java.lang.Override
        public AdminServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new AdminServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return AdminServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static AdminServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<AdminServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<AdminServiceBlockingStub>() {
        @java.lang.Override
        public AdminServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new AdminServiceBlockingStub(channel, callOptions);
        }
      };
    return AdminServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static AdminServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<AdminServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<AdminServiceFutureStub>() {
        @java.lang.Override
        public AdminServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new AdminServiceFutureStub(channel, callOptions);
        }
      };
    return AdminServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Keys and revocations, for operators. Registered on the admin plane alone.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * Facts about the keys of one profile or of all, ordered by profile, use and activation. Never key material.
     * </pre>
     */
    default void listKeys(dev.tokensidecar.v1.ListKeysRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.ListKeysResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListKeysMethod(), responseObserver);
    }

    /**
     * <pre>
     * Compromise: the named keys neither issue nor open from now on, and their successor is active in the same step.
     * </pre>
     */
    default void revokeKeys(dev.tokensidecar.v1.RevokeKeysRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeKeysResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRevokeKeysMethod(), responseObserver);
    }

    /**
     * <pre>
     * Ends all tokens of a subject issued up to a time, refresh families included.
     * </pre>
     */
    default void revokeSubject(dev.tokensidecar.v1.RevokeSubjectRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeSubjectResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRevokeSubjectMethod(), responseObserver);
    }

    /**
     * <pre>
     * Ends one token, named by its id.
     * </pre>
     */
    default void revokeTokenId(dev.tokensidecar.v1.RevokeTokenIdRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeTokenIdResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRevokeTokenIdMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service AdminService.
   * <pre>
   * Keys and revocations, for operators. Registered on the admin plane alone.
   * </pre>
   */
  public static abstract class AdminServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return AdminServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service AdminService.
   * <pre>
   * Keys and revocations, for operators. Registered on the admin plane alone.
   * </pre>
   */
  public static final class AdminServiceStub
      extends io.grpc.stub.AbstractAsyncStub<AdminServiceStub> {
    private AdminServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected AdminServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new AdminServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Facts about the keys of one profile or of all, ordered by profile, use and activation. Never key material.
     * </pre>
     */
    public void listKeys(dev.tokensidecar.v1.ListKeysRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.ListKeysResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListKeysMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Compromise: the named keys neither issue nor open from now on, and their successor is active in the same step.
     * </pre>
     */
    public void revokeKeys(dev.tokensidecar.v1.RevokeKeysRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeKeysResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRevokeKeysMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Ends all tokens of a subject issued up to a time, refresh families included.
     * </pre>
     */
    public void revokeSubject(dev.tokensidecar.v1.RevokeSubjectRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeSubjectResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRevokeSubjectMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Ends one token, named by its id.
     * </pre>
     */
    public void revokeTokenId(dev.tokensidecar.v1.RevokeTokenIdRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeTokenIdResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRevokeTokenIdMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service AdminService.
   * <pre>
   * Keys and revocations, for operators. Registered on the admin plane alone.
   * </pre>
   */
  public static final class AdminServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<AdminServiceBlockingV2Stub> {
    private AdminServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected AdminServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new AdminServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * Facts about the keys of one profile or of all, ordered by profile, use and activation. Never key material.
     * </pre>
     */
    public dev.tokensidecar.v1.ListKeysResponse listKeys(dev.tokensidecar.v1.ListKeysRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListKeysMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Compromise: the named keys neither issue nor open from now on, and their successor is active in the same step.
     * </pre>
     */
    public dev.tokensidecar.v1.RevokeKeysResponse revokeKeys(dev.tokensidecar.v1.RevokeKeysRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getRevokeKeysMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Ends all tokens of a subject issued up to a time, refresh families included.
     * </pre>
     */
    public dev.tokensidecar.v1.RevokeSubjectResponse revokeSubject(dev.tokensidecar.v1.RevokeSubjectRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getRevokeSubjectMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Ends one token, named by its id.
     * </pre>
     */
    public dev.tokensidecar.v1.RevokeTokenIdResponse revokeTokenId(dev.tokensidecar.v1.RevokeTokenIdRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getRevokeTokenIdMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service AdminService.
   * <pre>
   * Keys and revocations, for operators. Registered on the admin plane alone.
   * </pre>
   */
  public static final class AdminServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<AdminServiceBlockingStub> {
    private AdminServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected AdminServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new AdminServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * Facts about the keys of one profile or of all, ordered by profile, use and activation. Never key material.
     * </pre>
     */
    public dev.tokensidecar.v1.ListKeysResponse listKeys(dev.tokensidecar.v1.ListKeysRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListKeysMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Compromise: the named keys neither issue nor open from now on, and their successor is active in the same step.
     * </pre>
     */
    public dev.tokensidecar.v1.RevokeKeysResponse revokeKeys(dev.tokensidecar.v1.RevokeKeysRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRevokeKeysMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Ends all tokens of a subject issued up to a time, refresh families included.
     * </pre>
     */
    public dev.tokensidecar.v1.RevokeSubjectResponse revokeSubject(dev.tokensidecar.v1.RevokeSubjectRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRevokeSubjectMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Ends one token, named by its id.
     * </pre>
     */
    public dev.tokensidecar.v1.RevokeTokenIdResponse revokeTokenId(dev.tokensidecar.v1.RevokeTokenIdRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRevokeTokenIdMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service AdminService.
   * <pre>
   * Keys and revocations, for operators. Registered on the admin plane alone.
   * </pre>
   */
  public static final class AdminServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<AdminServiceFutureStub> {
    private AdminServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected AdminServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new AdminServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * Facts about the keys of one profile or of all, ordered by profile, use and activation. Never key material.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.ListKeysResponse> listKeys(
        dev.tokensidecar.v1.ListKeysRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListKeysMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Compromise: the named keys neither issue nor open from now on, and their successor is active in the same step.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.RevokeKeysResponse> revokeKeys(
        dev.tokensidecar.v1.RevokeKeysRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRevokeKeysMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Ends all tokens of a subject issued up to a time, refresh families included.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.RevokeSubjectResponse> revokeSubject(
        dev.tokensidecar.v1.RevokeSubjectRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRevokeSubjectMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Ends one token, named by its id.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.RevokeTokenIdResponse> revokeTokenId(
        dev.tokensidecar.v1.RevokeTokenIdRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRevokeTokenIdMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_LIST_KEYS = 0;
  private static final int METHODID_REVOKE_KEYS = 1;
  private static final int METHODID_REVOKE_SUBJECT = 2;
  private static final int METHODID_REVOKE_TOKEN_ID = 3;

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
        case METHODID_LIST_KEYS:
          serviceImpl.listKeys((dev.tokensidecar.v1.ListKeysRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.ListKeysResponse>) responseObserver);
          break;
        case METHODID_REVOKE_KEYS:
          serviceImpl.revokeKeys((dev.tokensidecar.v1.RevokeKeysRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeKeysResponse>) responseObserver);
          break;
        case METHODID_REVOKE_SUBJECT:
          serviceImpl.revokeSubject((dev.tokensidecar.v1.RevokeSubjectRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeSubjectResponse>) responseObserver);
          break;
        case METHODID_REVOKE_TOKEN_ID:
          serviceImpl.revokeTokenId((dev.tokensidecar.v1.RevokeTokenIdRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeTokenIdResponse>) responseObserver);
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
          getListKeysMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.ListKeysRequest,
              dev.tokensidecar.v1.ListKeysResponse>(
                service, METHODID_LIST_KEYS)))
        .addMethod(
          getRevokeKeysMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.RevokeKeysRequest,
              dev.tokensidecar.v1.RevokeKeysResponse>(
                service, METHODID_REVOKE_KEYS)))
        .addMethod(
          getRevokeSubjectMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.RevokeSubjectRequest,
              dev.tokensidecar.v1.RevokeSubjectResponse>(
                service, METHODID_REVOKE_SUBJECT)))
        .addMethod(
          getRevokeTokenIdMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.RevokeTokenIdRequest,
              dev.tokensidecar.v1.RevokeTokenIdResponse>(
                service, METHODID_REVOKE_TOKEN_ID)))
        .build();
  }

  private static abstract class AdminServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    AdminServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return dev.tokensidecar.v1.AdminServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("AdminService");
    }
  }

  private static final class AdminServiceFileDescriptorSupplier
      extends AdminServiceBaseDescriptorSupplier {
    AdminServiceFileDescriptorSupplier() {}
  }

  private static final class AdminServiceMethodDescriptorSupplier
      extends AdminServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    AdminServiceMethodDescriptorSupplier(java.lang.String methodName) {
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
      synchronized (AdminServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new AdminServiceFileDescriptorSupplier())
              .addMethod(getListKeysMethod())
              .addMethod(getRevokeKeysMethod())
              .addMethod(getRevokeSubjectMethod())
              .addMethod(getRevokeTokenIdMethod())
              .build();
        }
      }
    }
    return result;
  }
}
