// Package inferencepb is the messages and the service of the Open Inference Protocol over gRPC, generated from open_inference_grpc.proto.
//
// To generate it again, with protoc (or grpcio-tools of PyPI, python -m grpc_tools.protoc) on the path:
//
//	go generate ./serving/openinference/inferencepb
package inferencepb

//go:generate env GOBIN=/tmp/millrace-protoc go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
//go:generate env GOBIN=/tmp/millrace-protoc go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.1
//go:generate protoc --plugin=/tmp/millrace-protoc/protoc-gen-go --plugin=/tmp/millrace-protoc/protoc-gen-go-grpc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative open_inference_grpc.proto
