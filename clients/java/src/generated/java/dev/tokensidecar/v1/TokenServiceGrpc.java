package dev.tokensidecar.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Issue, validate and rotate encrypted JWTs. Registered on both planes: app serves all but Rotate (PERMISSION_DENIED unless a policy
 * grants it), admin serves Rotate and GetJwks (the rest is PERMISSION_DENIED).
 * | what went wrong        | code                                       | retry                        |
 * |------------------------|--------------------------------------------|------------------------------|
 * | the token is no good   | UNAUTHENTICATED, TOKEN_* or REFRESH_REUSED | never                        |
 * | the request is no good | INVALID_ARGUMENT, REQUEST_INVALID          | never                        |
 * | the caller may not     | PERMISSION_DENIED, CALLER_*                | never                        |
 * | another change won     | ABORTED, RING_CHANGED                      | after looking again          |
 * | too much               | RESOURCE_EXHAUSTED, OVERLOADED             | after RetryInfo              |
 * | cannot know            | UNAVAILABLE, STATE_STALE or *_UNAVAILABLE  | with back-off, if idempotent |
 * | not just now           | UNAVAILABLE, SUBJECT_REVOKED               | after RetryInfo              |
 * | not in this version    | UNIMPLEMENTED, NOT_IMPLEMENTED             | never                        |
 * | our fault              | INTERNAL, INTERNAL                         | never                        |
 * UNAUTHENTICATED speaks of the token in the request and of nothing else, so that a client in any language can act on the code alone.
 * Every error that the sidecar's code answers also carries google.rpc.ErrorInfo (domain "tokensidecar", reason) and the trailing
 * metadata `tokensidecar-reason`; gRPC's own (unknown method, message too large, deadline, cancel) carry none.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class TokenServiceGrpc {

  private TokenServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "tokensidecar.v1.TokenService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.IssueRequest,
      dev.tokensidecar.v1.IssueResponse> getIssueMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Issue",
      requestType = dev.tokensidecar.v1.IssueRequest.class,
      responseType = dev.tokensidecar.v1.IssueResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.IssueRequest,
      dev.tokensidecar.v1.IssueResponse> getIssueMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.IssueRequest, dev.tokensidecar.v1.IssueResponse> getIssueMethod;
    if ((getIssueMethod = TokenServiceGrpc.getIssueMethod) == null) {
      synchronized (TokenServiceGrpc.class) {
        if ((getIssueMethod = TokenServiceGrpc.getIssueMethod) == null) {
          TokenServiceGrpc.getIssueMethod = getIssueMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.IssueRequest, dev.tokensidecar.v1.IssueResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Issue"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.IssueRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.IssueResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenServiceMethodDescriptorSupplier("Issue"))
              .build();
        }
      }
    }
    return getIssueMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.ValidateRequest,
      dev.tokensidecar.v1.ValidateResponse> getValidateMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Validate",
      requestType = dev.tokensidecar.v1.ValidateRequest.class,
      responseType = dev.tokensidecar.v1.ValidateResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.ValidateRequest,
      dev.tokensidecar.v1.ValidateResponse> getValidateMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.ValidateRequest, dev.tokensidecar.v1.ValidateResponse> getValidateMethod;
    if ((getValidateMethod = TokenServiceGrpc.getValidateMethod) == null) {
      synchronized (TokenServiceGrpc.class) {
        if ((getValidateMethod = TokenServiceGrpc.getValidateMethod) == null) {
          TokenServiceGrpc.getValidateMethod = getValidateMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.ValidateRequest, dev.tokensidecar.v1.ValidateResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Validate"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.ValidateRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.ValidateResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenServiceMethodDescriptorSupplier("Validate"))
              .build();
        }
      }
    }
    return getValidateMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.BatchIssueRequest,
      dev.tokensidecar.v1.BatchIssueResponse> getBatchIssueMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "BatchIssue",
      requestType = dev.tokensidecar.v1.BatchIssueRequest.class,
      responseType = dev.tokensidecar.v1.BatchIssueResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.BatchIssueRequest,
      dev.tokensidecar.v1.BatchIssueResponse> getBatchIssueMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.BatchIssueRequest, dev.tokensidecar.v1.BatchIssueResponse> getBatchIssueMethod;
    if ((getBatchIssueMethod = TokenServiceGrpc.getBatchIssueMethod) == null) {
      synchronized (TokenServiceGrpc.class) {
        if ((getBatchIssueMethod = TokenServiceGrpc.getBatchIssueMethod) == null) {
          TokenServiceGrpc.getBatchIssueMethod = getBatchIssueMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.BatchIssueRequest, dev.tokensidecar.v1.BatchIssueResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "BatchIssue"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.BatchIssueRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.BatchIssueResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenServiceMethodDescriptorSupplier("BatchIssue"))
              .build();
        }
      }
    }
    return getBatchIssueMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.BatchValidateRequest,
      dev.tokensidecar.v1.BatchValidateResponse> getBatchValidateMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "BatchValidate",
      requestType = dev.tokensidecar.v1.BatchValidateRequest.class,
      responseType = dev.tokensidecar.v1.BatchValidateResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.BatchValidateRequest,
      dev.tokensidecar.v1.BatchValidateResponse> getBatchValidateMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.BatchValidateRequest, dev.tokensidecar.v1.BatchValidateResponse> getBatchValidateMethod;
    if ((getBatchValidateMethod = TokenServiceGrpc.getBatchValidateMethod) == null) {
      synchronized (TokenServiceGrpc.class) {
        if ((getBatchValidateMethod = TokenServiceGrpc.getBatchValidateMethod) == null) {
          TokenServiceGrpc.getBatchValidateMethod = getBatchValidateMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.BatchValidateRequest, dev.tokensidecar.v1.BatchValidateResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "BatchValidate"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.BatchValidateRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.BatchValidateResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenServiceMethodDescriptorSupplier("BatchValidate"))
              .build();
        }
      }
    }
    return getBatchValidateMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.RefreshRequest,
      dev.tokensidecar.v1.RefreshResponse> getRefreshMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Refresh",
      requestType = dev.tokensidecar.v1.RefreshRequest.class,
      responseType = dev.tokensidecar.v1.RefreshResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.RefreshRequest,
      dev.tokensidecar.v1.RefreshResponse> getRefreshMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.RefreshRequest, dev.tokensidecar.v1.RefreshResponse> getRefreshMethod;
    if ((getRefreshMethod = TokenServiceGrpc.getRefreshMethod) == null) {
      synchronized (TokenServiceGrpc.class) {
        if ((getRefreshMethod = TokenServiceGrpc.getRefreshMethod) == null) {
          TokenServiceGrpc.getRefreshMethod = getRefreshMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.RefreshRequest, dev.tokensidecar.v1.RefreshResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Refresh"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RefreshRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RefreshResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenServiceMethodDescriptorSupplier("Refresh"))
              .build();
        }
      }
    }
    return getRefreshMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeRequest,
      dev.tokensidecar.v1.RevokeResponse> getRevokeMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Revoke",
      requestType = dev.tokensidecar.v1.RevokeRequest.class,
      responseType = dev.tokensidecar.v1.RevokeResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeRequest,
      dev.tokensidecar.v1.RevokeResponse> getRevokeMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.RevokeRequest, dev.tokensidecar.v1.RevokeResponse> getRevokeMethod;
    if ((getRevokeMethod = TokenServiceGrpc.getRevokeMethod) == null) {
      synchronized (TokenServiceGrpc.class) {
        if ((getRevokeMethod = TokenServiceGrpc.getRevokeMethod) == null) {
          TokenServiceGrpc.getRevokeMethod = getRevokeMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.RevokeRequest, dev.tokensidecar.v1.RevokeResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Revoke"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RevokeRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RevokeResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenServiceMethodDescriptorSupplier("Revoke"))
              .build();
        }
      }
    }
    return getRevokeMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.RotateRequest,
      dev.tokensidecar.v1.RotateResponse> getRotateMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Rotate",
      requestType = dev.tokensidecar.v1.RotateRequest.class,
      responseType = dev.tokensidecar.v1.RotateResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.RotateRequest,
      dev.tokensidecar.v1.RotateResponse> getRotateMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.RotateRequest, dev.tokensidecar.v1.RotateResponse> getRotateMethod;
    if ((getRotateMethod = TokenServiceGrpc.getRotateMethod) == null) {
      synchronized (TokenServiceGrpc.class) {
        if ((getRotateMethod = TokenServiceGrpc.getRotateMethod) == null) {
          TokenServiceGrpc.getRotateMethod = getRotateMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.RotateRequest, dev.tokensidecar.v1.RotateResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Rotate"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RotateRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.RotateResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenServiceMethodDescriptorSupplier("Rotate"))
              .build();
        }
      }
    }
    return getRotateMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tokensidecar.v1.GetJwksRequest,
      dev.tokensidecar.v1.GetJwksResponse> getGetJwksMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetJwks",
      requestType = dev.tokensidecar.v1.GetJwksRequest.class,
      responseType = dev.tokensidecar.v1.GetJwksResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tokensidecar.v1.GetJwksRequest,
      dev.tokensidecar.v1.GetJwksResponse> getGetJwksMethod() {
    io.grpc.MethodDescriptor<dev.tokensidecar.v1.GetJwksRequest, dev.tokensidecar.v1.GetJwksResponse> getGetJwksMethod;
    if ((getGetJwksMethod = TokenServiceGrpc.getGetJwksMethod) == null) {
      synchronized (TokenServiceGrpc.class) {
        if ((getGetJwksMethod = TokenServiceGrpc.getGetJwksMethod) == null) {
          TokenServiceGrpc.getGetJwksMethod = getGetJwksMethod =
              io.grpc.MethodDescriptor.<dev.tokensidecar.v1.GetJwksRequest, dev.tokensidecar.v1.GetJwksResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetJwks"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.GetJwksRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tokensidecar.v1.GetJwksResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenServiceMethodDescriptorSupplier("GetJwks"))
              .build();
        }
      }
    }
    return getGetJwksMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static TokenServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TokenServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TokenServiceStub>() {
        @java.lang.Override
        public TokenServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TokenServiceStub(channel, callOptions);
        }
      };
    return TokenServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static TokenServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TokenServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TokenServiceBlockingV2Stub>() {
        @java.lang.Override
        public TokenServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TokenServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return TokenServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static TokenServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TokenServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TokenServiceBlockingStub>() {
        @java.lang.Override
        public TokenServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TokenServiceBlockingStub(channel, callOptions);
        }
      };
    return TokenServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static TokenServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TokenServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TokenServiceFutureStub>() {
        @java.lang.Override
        public TokenServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TokenServiceFutureStub(channel, callOptions);
        }
      };
    return TokenServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Issue, validate and rotate encrypted JWTs. Registered on both planes: app serves all but Rotate (PERMISSION_DENIED unless a policy
   * grants it), admin serves Rotate and GetJwks (the rest is PERMISSION_DENIED).
   * | what went wrong        | code                                       | retry                        |
   * |------------------------|--------------------------------------------|------------------------------|
   * | the token is no good   | UNAUTHENTICATED, TOKEN_* or REFRESH_REUSED | never                        |
   * | the request is no good | INVALID_ARGUMENT, REQUEST_INVALID          | never                        |
   * | the caller may not     | PERMISSION_DENIED, CALLER_*                | never                        |
   * | another change won     | ABORTED, RING_CHANGED                      | after looking again          |
   * | too much               | RESOURCE_EXHAUSTED, OVERLOADED             | after RetryInfo              |
   * | cannot know            | UNAVAILABLE, STATE_STALE or *_UNAVAILABLE  | with back-off, if idempotent |
   * | not just now           | UNAVAILABLE, SUBJECT_REVOKED               | after RetryInfo              |
   * | not in this version    | UNIMPLEMENTED, NOT_IMPLEMENTED             | never                        |
   * | our fault              | INTERNAL, INTERNAL                         | never                        |
   * UNAUTHENTICATED speaks of the token in the request and of nothing else, so that a client in any language can act on the code alone.
   * Every error that the sidecar's code answers also carries google.rpc.ErrorInfo (domain "tokensidecar", reason) and the trailing
   * metadata `tokensidecar-reason`; gRPC's own (unknown method, message too large, deadline, cancel) carry none.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * Makes a token for a subject.
     * </pre>
     */
    default void issue(dev.tokensidecar.v1.IssueRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.IssueResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getIssueMethod(), responseObserver);
    }

    /**
     * <pre>
     * Opens and checks a token. OK means: good for one of these audiences, now.
     * </pre>
     */
    default void validate(dev.tokensidecar.v1.ValidateRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.ValidateResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getValidateMethod(), responseObserver);
    }

    /**
     * <pre>
     * Issue with a result per item: one bad request never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    default void batchIssue(dev.tokensidecar.v1.BatchIssueRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.BatchIssueResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getBatchIssueMethod(), responseObserver);
    }

    /**
     * <pre>
     * Validate with a result per item: one bad token never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    default void batchValidate(dev.tokensidecar.v1.BatchValidateRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.BatchValidateResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getBatchValidateMethod(), responseObserver);
    }

    /**
     * <pre>
     * Trades a refresh token for a new pair. A repeat of the last spent one within the grace (10 s), while its successor is unspent, is
     * answered again with the successor's token_id: a lost reply costs nothing. Any other reuse revokes the family: REFRESH_REUSED.
     * </pre>
     */
    default void refresh(dev.tokensidecar.v1.RefreshRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RefreshResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRefreshMethod(), responseObserver);
    }

    /**
     * <pre>
     * Ends the presented token (of a refresh token, its family): logout. OK also for one that is unknown or already revoked (RFC 7009).
     * </pre>
     */
    default void revoke(dev.tokensidecar.v1.RevokeRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRevokeMethod(), responseObserver);
    }

    /**
     * <pre>
     * Prepares the successor of a profile's keys; it activates when every reachable sidecar must know it. RING_CHANGED while a successor
     * of that use is pending.
     * </pre>
     */
    default void rotate(dev.tokensidecar.v1.RotateRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RotateResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRotateMethod(), responseObserver);
    }

    /**
     * <pre>
     * Public halves of a profile's keys, as a JWK Set. Symmetric keys never appear.
     * </pre>
     */
    default void getJwks(dev.tokensidecar.v1.GetJwksRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.GetJwksResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetJwksMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service TokenService.
   * <pre>
   * Issue, validate and rotate encrypted JWTs. Registered on both planes: app serves all but Rotate (PERMISSION_DENIED unless a policy
   * grants it), admin serves Rotate and GetJwks (the rest is PERMISSION_DENIED).
   * | what went wrong        | code                                       | retry                        |
   * |------------------------|--------------------------------------------|------------------------------|
   * | the token is no good   | UNAUTHENTICATED, TOKEN_* or REFRESH_REUSED | never                        |
   * | the request is no good | INVALID_ARGUMENT, REQUEST_INVALID          | never                        |
   * | the caller may not     | PERMISSION_DENIED, CALLER_*                | never                        |
   * | another change won     | ABORTED, RING_CHANGED                      | after looking again          |
   * | too much               | RESOURCE_EXHAUSTED, OVERLOADED             | after RetryInfo              |
   * | cannot know            | UNAVAILABLE, STATE_STALE or *_UNAVAILABLE  | with back-off, if idempotent |
   * | not just now           | UNAVAILABLE, SUBJECT_REVOKED               | after RetryInfo              |
   * | not in this version    | UNIMPLEMENTED, NOT_IMPLEMENTED             | never                        |
   * | our fault              | INTERNAL, INTERNAL                         | never                        |
   * UNAUTHENTICATED speaks of the token in the request and of nothing else, so that a client in any language can act on the code alone.
   * Every error that the sidecar's code answers also carries google.rpc.ErrorInfo (domain "tokensidecar", reason) and the trailing
   * metadata `tokensidecar-reason`; gRPC's own (unknown method, message too large, deadline, cancel) carry none.
   * </pre>
   */
  public static abstract class TokenServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return TokenServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service TokenService.
   * <pre>
   * Issue, validate and rotate encrypted JWTs. Registered on both planes: app serves all but Rotate (PERMISSION_DENIED unless a policy
   * grants it), admin serves Rotate and GetJwks (the rest is PERMISSION_DENIED).
   * | what went wrong        | code                                       | retry                        |
   * |------------------------|--------------------------------------------|------------------------------|
   * | the token is no good   | UNAUTHENTICATED, TOKEN_* or REFRESH_REUSED | never                        |
   * | the request is no good | INVALID_ARGUMENT, REQUEST_INVALID          | never                        |
   * | the caller may not     | PERMISSION_DENIED, CALLER_*                | never                        |
   * | another change won     | ABORTED, RING_CHANGED                      | after looking again          |
   * | too much               | RESOURCE_EXHAUSTED, OVERLOADED             | after RetryInfo              |
   * | cannot know            | UNAVAILABLE, STATE_STALE or *_UNAVAILABLE  | with back-off, if idempotent |
   * | not just now           | UNAVAILABLE, SUBJECT_REVOKED               | after RetryInfo              |
   * | not in this version    | UNIMPLEMENTED, NOT_IMPLEMENTED             | never                        |
   * | our fault              | INTERNAL, INTERNAL                         | never                        |
   * UNAUTHENTICATED speaks of the token in the request and of nothing else, so that a client in any language can act on the code alone.
   * Every error that the sidecar's code answers also carries google.rpc.ErrorInfo (domain "tokensidecar", reason) and the trailing
   * metadata `tokensidecar-reason`; gRPC's own (unknown method, message too large, deadline, cancel) carry none.
   * </pre>
   */
  public static final class TokenServiceStub
      extends io.grpc.stub.AbstractAsyncStub<TokenServiceStub> {
    private TokenServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TokenServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TokenServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Makes a token for a subject.
     * </pre>
     */
    public void issue(dev.tokensidecar.v1.IssueRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.IssueResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getIssueMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Opens and checks a token. OK means: good for one of these audiences, now.
     * </pre>
     */
    public void validate(dev.tokensidecar.v1.ValidateRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.ValidateResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getValidateMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Issue with a result per item: one bad request never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    public void batchIssue(dev.tokensidecar.v1.BatchIssueRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.BatchIssueResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getBatchIssueMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Validate with a result per item: one bad token never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    public void batchValidate(dev.tokensidecar.v1.BatchValidateRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.BatchValidateResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getBatchValidateMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Trades a refresh token for a new pair. A repeat of the last spent one within the grace (10 s), while its successor is unspent, is
     * answered again with the successor's token_id: a lost reply costs nothing. Any other reuse revokes the family: REFRESH_REUSED.
     * </pre>
     */
    public void refresh(dev.tokensidecar.v1.RefreshRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RefreshResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRefreshMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Ends the presented token (of a refresh token, its family): logout. OK also for one that is unknown or already revoked (RFC 7009).
     * </pre>
     */
    public void revoke(dev.tokensidecar.v1.RevokeRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRevokeMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Prepares the successor of a profile's keys; it activates when every reachable sidecar must know it. RING_CHANGED while a successor
     * of that use is pending.
     * </pre>
     */
    public void rotate(dev.tokensidecar.v1.RotateRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RotateResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRotateMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Public halves of a profile's keys, as a JWK Set. Symmetric keys never appear.
     * </pre>
     */
    public void getJwks(dev.tokensidecar.v1.GetJwksRequest request,
        io.grpc.stub.StreamObserver<dev.tokensidecar.v1.GetJwksResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetJwksMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service TokenService.
   * <pre>
   * Issue, validate and rotate encrypted JWTs. Registered on both planes: app serves all but Rotate (PERMISSION_DENIED unless a policy
   * grants it), admin serves Rotate and GetJwks (the rest is PERMISSION_DENIED).
   * | what went wrong        | code                                       | retry                        |
   * |------------------------|--------------------------------------------|------------------------------|
   * | the token is no good   | UNAUTHENTICATED, TOKEN_* or REFRESH_REUSED | never                        |
   * | the request is no good | INVALID_ARGUMENT, REQUEST_INVALID          | never                        |
   * | the caller may not     | PERMISSION_DENIED, CALLER_*                | never                        |
   * | another change won     | ABORTED, RING_CHANGED                      | after looking again          |
   * | too much               | RESOURCE_EXHAUSTED, OVERLOADED             | after RetryInfo              |
   * | cannot know            | UNAVAILABLE, STATE_STALE or *_UNAVAILABLE  | with back-off, if idempotent |
   * | not just now           | UNAVAILABLE, SUBJECT_REVOKED               | after RetryInfo              |
   * | not in this version    | UNIMPLEMENTED, NOT_IMPLEMENTED             | never                        |
   * | our fault              | INTERNAL, INTERNAL                         | never                        |
   * UNAUTHENTICATED speaks of the token in the request and of nothing else, so that a client in any language can act on the code alone.
   * Every error that the sidecar's code answers also carries google.rpc.ErrorInfo (domain "tokensidecar", reason) and the trailing
   * metadata `tokensidecar-reason`; gRPC's own (unknown method, message too large, deadline, cancel) carry none.
   * </pre>
   */
  public static final class TokenServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<TokenServiceBlockingV2Stub> {
    private TokenServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TokenServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TokenServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * Makes a token for a subject.
     * </pre>
     */
    public dev.tokensidecar.v1.IssueResponse issue(dev.tokensidecar.v1.IssueRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getIssueMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Opens and checks a token. OK means: good for one of these audiences, now.
     * </pre>
     */
    public dev.tokensidecar.v1.ValidateResponse validate(dev.tokensidecar.v1.ValidateRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getValidateMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Issue with a result per item: one bad request never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    public dev.tokensidecar.v1.BatchIssueResponse batchIssue(dev.tokensidecar.v1.BatchIssueRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getBatchIssueMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Validate with a result per item: one bad token never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    public dev.tokensidecar.v1.BatchValidateResponse batchValidate(dev.tokensidecar.v1.BatchValidateRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getBatchValidateMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Trades a refresh token for a new pair. A repeat of the last spent one within the grace (10 s), while its successor is unspent, is
     * answered again with the successor's token_id: a lost reply costs nothing. Any other reuse revokes the family: REFRESH_REUSED.
     * </pre>
     */
    public dev.tokensidecar.v1.RefreshResponse refresh(dev.tokensidecar.v1.RefreshRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getRefreshMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Ends the presented token (of a refresh token, its family): logout. OK also for one that is unknown or already revoked (RFC 7009).
     * </pre>
     */
    public dev.tokensidecar.v1.RevokeResponse revoke(dev.tokensidecar.v1.RevokeRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getRevokeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Prepares the successor of a profile's keys; it activates when every reachable sidecar must know it. RING_CHANGED while a successor
     * of that use is pending.
     * </pre>
     */
    public dev.tokensidecar.v1.RotateResponse rotate(dev.tokensidecar.v1.RotateRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getRotateMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Public halves of a profile's keys, as a JWK Set. Symmetric keys never appear.
     * </pre>
     */
    public dev.tokensidecar.v1.GetJwksResponse getJwks(dev.tokensidecar.v1.GetJwksRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGetJwksMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service TokenService.
   * <pre>
   * Issue, validate and rotate encrypted JWTs. Registered on both planes: app serves all but Rotate (PERMISSION_DENIED unless a policy
   * grants it), admin serves Rotate and GetJwks (the rest is PERMISSION_DENIED).
   * | what went wrong        | code                                       | retry                        |
   * |------------------------|--------------------------------------------|------------------------------|
   * | the token is no good   | UNAUTHENTICATED, TOKEN_* or REFRESH_REUSED | never                        |
   * | the request is no good | INVALID_ARGUMENT, REQUEST_INVALID          | never                        |
   * | the caller may not     | PERMISSION_DENIED, CALLER_*                | never                        |
   * | another change won     | ABORTED, RING_CHANGED                      | after looking again          |
   * | too much               | RESOURCE_EXHAUSTED, OVERLOADED             | after RetryInfo              |
   * | cannot know            | UNAVAILABLE, STATE_STALE or *_UNAVAILABLE  | with back-off, if idempotent |
   * | not just now           | UNAVAILABLE, SUBJECT_REVOKED               | after RetryInfo              |
   * | not in this version    | UNIMPLEMENTED, NOT_IMPLEMENTED             | never                        |
   * | our fault              | INTERNAL, INTERNAL                         | never                        |
   * UNAUTHENTICATED speaks of the token in the request and of nothing else, so that a client in any language can act on the code alone.
   * Every error that the sidecar's code answers also carries google.rpc.ErrorInfo (domain "tokensidecar", reason) and the trailing
   * metadata `tokensidecar-reason`; gRPC's own (unknown method, message too large, deadline, cancel) carry none.
   * </pre>
   */
  public static final class TokenServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<TokenServiceBlockingStub> {
    private TokenServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TokenServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TokenServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * Makes a token for a subject.
     * </pre>
     */
    public dev.tokensidecar.v1.IssueResponse issue(dev.tokensidecar.v1.IssueRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getIssueMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Opens and checks a token. OK means: good for one of these audiences, now.
     * </pre>
     */
    public dev.tokensidecar.v1.ValidateResponse validate(dev.tokensidecar.v1.ValidateRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getValidateMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Issue with a result per item: one bad request never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    public dev.tokensidecar.v1.BatchIssueResponse batchIssue(dev.tokensidecar.v1.BatchIssueRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getBatchIssueMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Validate with a result per item: one bad token never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    public dev.tokensidecar.v1.BatchValidateResponse batchValidate(dev.tokensidecar.v1.BatchValidateRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getBatchValidateMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Trades a refresh token for a new pair. A repeat of the last spent one within the grace (10 s), while its successor is unspent, is
     * answered again with the successor's token_id: a lost reply costs nothing. Any other reuse revokes the family: REFRESH_REUSED.
     * </pre>
     */
    public dev.tokensidecar.v1.RefreshResponse refresh(dev.tokensidecar.v1.RefreshRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRefreshMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Ends the presented token (of a refresh token, its family): logout. OK also for one that is unknown or already revoked (RFC 7009).
     * </pre>
     */
    public dev.tokensidecar.v1.RevokeResponse revoke(dev.tokensidecar.v1.RevokeRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRevokeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Prepares the successor of a profile's keys; it activates when every reachable sidecar must know it. RING_CHANGED while a successor
     * of that use is pending.
     * </pre>
     */
    public dev.tokensidecar.v1.RotateResponse rotate(dev.tokensidecar.v1.RotateRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRotateMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Public halves of a profile's keys, as a JWK Set. Symmetric keys never appear.
     * </pre>
     */
    public dev.tokensidecar.v1.GetJwksResponse getJwks(dev.tokensidecar.v1.GetJwksRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetJwksMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service TokenService.
   * <pre>
   * Issue, validate and rotate encrypted JWTs. Registered on both planes: app serves all but Rotate (PERMISSION_DENIED unless a policy
   * grants it), admin serves Rotate and GetJwks (the rest is PERMISSION_DENIED).
   * | what went wrong        | code                                       | retry                        |
   * |------------------------|--------------------------------------------|------------------------------|
   * | the token is no good   | UNAUTHENTICATED, TOKEN_* or REFRESH_REUSED | never                        |
   * | the request is no good | INVALID_ARGUMENT, REQUEST_INVALID          | never                        |
   * | the caller may not     | PERMISSION_DENIED, CALLER_*                | never                        |
   * | another change won     | ABORTED, RING_CHANGED                      | after looking again          |
   * | too much               | RESOURCE_EXHAUSTED, OVERLOADED             | after RetryInfo              |
   * | cannot know            | UNAVAILABLE, STATE_STALE or *_UNAVAILABLE  | with back-off, if idempotent |
   * | not just now           | UNAVAILABLE, SUBJECT_REVOKED               | after RetryInfo              |
   * | not in this version    | UNIMPLEMENTED, NOT_IMPLEMENTED             | never                        |
   * | our fault              | INTERNAL, INTERNAL                         | never                        |
   * UNAUTHENTICATED speaks of the token in the request and of nothing else, so that a client in any language can act on the code alone.
   * Every error that the sidecar's code answers also carries google.rpc.ErrorInfo (domain "tokensidecar", reason) and the trailing
   * metadata `tokensidecar-reason`; gRPC's own (unknown method, message too large, deadline, cancel) carry none.
   * </pre>
   */
  public static final class TokenServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<TokenServiceFutureStub> {
    private TokenServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TokenServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TokenServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * Makes a token for a subject.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.IssueResponse> issue(
        dev.tokensidecar.v1.IssueRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getIssueMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Opens and checks a token. OK means: good for one of these audiences, now.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.ValidateResponse> validate(
        dev.tokensidecar.v1.ValidateRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getValidateMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Issue with a result per item: one bad request never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.BatchIssueResponse> batchIssue(
        dev.tokensidecar.v1.BatchIssueRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getBatchIssueMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Validate with a result per item: one bad token never fails its neighbours. At most 1,000 items and 1 MiB each way, judged before
     * any effect.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.BatchValidateResponse> batchValidate(
        dev.tokensidecar.v1.BatchValidateRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getBatchValidateMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Trades a refresh token for a new pair. A repeat of the last spent one within the grace (10 s), while its successor is unspent, is
     * answered again with the successor's token_id: a lost reply costs nothing. Any other reuse revokes the family: REFRESH_REUSED.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.RefreshResponse> refresh(
        dev.tokensidecar.v1.RefreshRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRefreshMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Ends the presented token (of a refresh token, its family): logout. OK also for one that is unknown or already revoked (RFC 7009).
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.RevokeResponse> revoke(
        dev.tokensidecar.v1.RevokeRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRevokeMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Prepares the successor of a profile's keys; it activates when every reachable sidecar must know it. RING_CHANGED while a successor
     * of that use is pending.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.RotateResponse> rotate(
        dev.tokensidecar.v1.RotateRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRotateMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Public halves of a profile's keys, as a JWK Set. Symmetric keys never appear.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tokensidecar.v1.GetJwksResponse> getJwks(
        dev.tokensidecar.v1.GetJwksRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetJwksMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_ISSUE = 0;
  private static final int METHODID_VALIDATE = 1;
  private static final int METHODID_BATCH_ISSUE = 2;
  private static final int METHODID_BATCH_VALIDATE = 3;
  private static final int METHODID_REFRESH = 4;
  private static final int METHODID_REVOKE = 5;
  private static final int METHODID_ROTATE = 6;
  private static final int METHODID_GET_JWKS = 7;

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
        case METHODID_ISSUE:
          serviceImpl.issue((dev.tokensidecar.v1.IssueRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.IssueResponse>) responseObserver);
          break;
        case METHODID_VALIDATE:
          serviceImpl.validate((dev.tokensidecar.v1.ValidateRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.ValidateResponse>) responseObserver);
          break;
        case METHODID_BATCH_ISSUE:
          serviceImpl.batchIssue((dev.tokensidecar.v1.BatchIssueRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.BatchIssueResponse>) responseObserver);
          break;
        case METHODID_BATCH_VALIDATE:
          serviceImpl.batchValidate((dev.tokensidecar.v1.BatchValidateRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.BatchValidateResponse>) responseObserver);
          break;
        case METHODID_REFRESH:
          serviceImpl.refresh((dev.tokensidecar.v1.RefreshRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RefreshResponse>) responseObserver);
          break;
        case METHODID_REVOKE:
          serviceImpl.revoke((dev.tokensidecar.v1.RevokeRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RevokeResponse>) responseObserver);
          break;
        case METHODID_ROTATE:
          serviceImpl.rotate((dev.tokensidecar.v1.RotateRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.RotateResponse>) responseObserver);
          break;
        case METHODID_GET_JWKS:
          serviceImpl.getJwks((dev.tokensidecar.v1.GetJwksRequest) request,
              (io.grpc.stub.StreamObserver<dev.tokensidecar.v1.GetJwksResponse>) responseObserver);
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
          getIssueMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.IssueRequest,
              dev.tokensidecar.v1.IssueResponse>(
                service, METHODID_ISSUE)))
        .addMethod(
          getValidateMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.ValidateRequest,
              dev.tokensidecar.v1.ValidateResponse>(
                service, METHODID_VALIDATE)))
        .addMethod(
          getBatchIssueMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.BatchIssueRequest,
              dev.tokensidecar.v1.BatchIssueResponse>(
                service, METHODID_BATCH_ISSUE)))
        .addMethod(
          getBatchValidateMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.BatchValidateRequest,
              dev.tokensidecar.v1.BatchValidateResponse>(
                service, METHODID_BATCH_VALIDATE)))
        .addMethod(
          getRefreshMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.RefreshRequest,
              dev.tokensidecar.v1.RefreshResponse>(
                service, METHODID_REFRESH)))
        .addMethod(
          getRevokeMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.RevokeRequest,
              dev.tokensidecar.v1.RevokeResponse>(
                service, METHODID_REVOKE)))
        .addMethod(
          getRotateMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.RotateRequest,
              dev.tokensidecar.v1.RotateResponse>(
                service, METHODID_ROTATE)))
        .addMethod(
          getGetJwksMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tokensidecar.v1.GetJwksRequest,
              dev.tokensidecar.v1.GetJwksResponse>(
                service, METHODID_GET_JWKS)))
        .build();
  }

  private static abstract class TokenServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    TokenServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return dev.tokensidecar.v1.TokenServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("TokenService");
    }
  }

  private static final class TokenServiceFileDescriptorSupplier
      extends TokenServiceBaseDescriptorSupplier {
    TokenServiceFileDescriptorSupplier() {}
  }

  private static final class TokenServiceMethodDescriptorSupplier
      extends TokenServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    TokenServiceMethodDescriptorSupplier(java.lang.String methodName) {
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
      synchronized (TokenServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new TokenServiceFileDescriptorSupplier())
              .addMethod(getIssueMethod())
              .addMethod(getValidateMethod())
              .addMethod(getBatchIssueMethod())
              .addMethod(getBatchValidateMethod())
              .addMethod(getRefreshMethod())
              .addMethod(getRevokeMethod())
              .addMethod(getRotateMethod())
              .addMethod(getGetJwksMethod())
              .build();
        }
      }
    }
    return result;
  }
}
