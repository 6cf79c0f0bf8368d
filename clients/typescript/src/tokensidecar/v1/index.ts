// Generated from proto/ by generate.sh; never edited.
export * from "./admin_service_pb.js";
export * from "./errors_pb.js";
export * from "./keys_pb.js";
export * from "./token_service_pb.js";
