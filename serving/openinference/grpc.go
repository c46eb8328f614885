package openinference

import (
	"context"
	"errors"
	"net/http"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	metadatas "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/millrace/millrace/serving/openinference/inferencepb"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/serving"
	"github.com/millrace/millrace/serving/access"
)

// service answers the protocol over gRPC.
type service struct {
	pb.UnimplementedGRPCInferenceServiceServer
	stage   Stage
	version string
	now     clock.Clock
}

// Register puts the protocol's service, and gRPC's own health service, on a server. version is the server's own, for its metadata.
func Register(to grpc.ServiceRegistrar, s Stage, version string, now clock.Clock) {
	pb.RegisterGRPCInferenceServiceServer(to, &service{stage: s, version: version, now: now})
	grpc_health_v1.RegisterHealthServer(to, &health{stage: s})
}

// Interceptor counts and times what is answered, by method and code.
func Interceptor(s Stage, now clock.Clock) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		start := now()
		answer, err := handle(ctx, req)
		s.Measure("grpc_"+path.Base(info.FullMethod), status.Code(err).String(), now().Sub(start))
		return answer, err
	}
}

// Guarded lets in who may ask for scores; health is for everybody.
func Guarded(g *access.Guard) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		sent := ""
		if list := metadatas.ValueFromIncomingContext(ctx, "authorization"); len(list) == 1 {
			sent = list[0]
		}
		ctx, denied := g.Enter(ctx, sent, access.Rule{Right: access.Score, Open: open[info.FullMethod]})
		if denied != nil {
			return nil, StatusOf(serving.ProblemOf(denied))
		}
		return handle(ctx, req)
	}
}

// open is the methods that say no more than whether the server is well.
var open = map[string]bool{
	grpc_health_v1.Health_Check_FullMethodName:         true,
	pb.GRPCInferenceService_ServerLive_FullMethodName:  true,
	pb.GRPCInferenceService_ServerReady_FullMethodName: true,
}

// statusCodes is the gRPC code of a problem's HTTP status; Internal of any other.
var statusCodes = map[int]codes.Code{
	http.StatusBadRequest: codes.InvalidArgument, http.StatusUnauthorized: codes.Unauthenticated, http.StatusForbidden: codes.PermissionDenied,
	http.StatusNotFound: codes.NotFound, http.StatusConflict: codes.Aborted, http.StatusRequestEntityTooLarge: codes.InvalidArgument,
	http.StatusUnprocessableEntity: codes.FailedPrecondition, http.StatusTooManyRequests: codes.ResourceExhausted,
	499:                           codes.Canceled, // the client hung up
	http.StatusNotImplemented:     codes.Unimplemented,
	http.StatusServiceUnavailable: codes.Unavailable, http.StatusGatewayTimeout: codes.DeadlineExceeded,
}

// StatusOf is a problem as gRPC says it.
func StatusOf(p *serving.Problem) error {
	code, ok := statusCodes[p.Status]
	if !ok {
		code = codes.Internal
	}
	return status.Error(code, p.Error())
}

func (s *service) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

func (s *service) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: s.stage.Ready() == nil}, nil
}

func (s *service) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: "millrace", Version: s.version, Extensions: extensions}, nil
}

func (s *service) ModelReady(ctx context.Context, r *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	m, p := served(ctx, s.stage, r.GetName(), r.GetVersion())
	if p != nil {
		return nil, StatusOf(p)
	}
	return &pb.ModelReadyResponse{Ready: m.Live}, nil
}

func (s *service) ModelMetadata(ctx context.Context, r *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m, p := served(ctx, s.stage, r.GetName(), r.GetVersion())
	if p != nil {
		return nil, StatusOf(p)
	}
	known := metadata(&m)
	return &pb.ModelMetadataResponse{
		Name: known.Name, Versions: known.Versions, Platform: known.Platform, Inputs: tensorsMetadata(known.Inputs), Outputs: tensorsMetadata(known.Outputs),
		Properties: known.Parameters,
	}, nil
}

func tensorsMetadata(list []tensorMetadata) []*pb.ModelMetadataResponse_TensorMetadata {
	out := make([]*pb.ModelMetadataResponse_TensorMetadata, len(list))
	for i, t := range list {
		out[i] = &pb.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape}
	}
	return out
}

func (s *service) RepositoryIndex(ctx context.Context, r *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	out := &pb.RepositoryIndexResponse{}
	for _, e := range index(ctx, s.stage, r.GetReady()) {
		out.Models = append(out.Models, &pb.RepositoryIndexResponse_ModelIndex{Name: e.Name, Version: e.Version, State: e.State, Reason: e.Reason})
	}
	return out, nil
}

func (s *service) RepositoryModelLoad(ctx context.Context, r *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	return nil, StatusOf(promoted(ctx, s.stage, r.GetModelName(), true))
}

func (s *service) RepositoryModelUnload(ctx context.Context, r *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	return nil, StatusOf(promoted(ctx, s.stage, r.GetModelName(), false))
}

func (s *service) ModelInfer(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	asked, p := requestOf(r)
	if deadline, ok := ctx.Deadline(); ok && p == nil && asked.timeout == 0 {
		asked.timeout = max(deadline.Sub(s.now()), 1)
	}
	if p != nil {
		return nil, StatusOf(p)
	}
	a, p := infer(ctx, s.stage, asked)
	if p != nil {
		return nil, StatusOf(p)
	}
	out := &pb.ModelInferResponse{ModelName: a.model, ModelVersion: a.version, Id: asked.id}
	raw := len(r.GetRawInputContents()) > 0 // who sends raw contents reads them
	for _, t := range a.outputs {
		o := &pb.ModelInferResponse_InferOutputTensor{Name: t.name, Datatype: t.datatype, Shape: t.shape}
		if raw {
			out.RawOutputContents = append(out.RawOutputContents, t.appendRaw(nil))
		} else {
			o.Contents = t.contents()
		}
		out.Outputs = append(out.Outputs, o)
	}
	return out, nil
}

func requestOf(r *pb.ModelInferRequest) (*request, *serving.Problem) {
	asked := &request{model: r.GetModelName(), version: r.GetModelVersion(), id: r.GetId()}
	if t := r.GetParameters()["timeout"]; t != nil {
		micros := t.GetInt64Param() + int64(t.GetUint64Param())
		if micros < 0 || micros > int64(time.Hour/time.Microsecond) {
			return nil, wrongType("parameters.timeout", "a number of microseconds, at most an hour's")
		}
		asked.timeout = time.Duration(micros) * time.Microsecond
	}
	raw := r.GetRawInputContents()
	if len(raw) > 0 && len(raw) != len(r.GetInputs()) {
		return nil, invalid("raw_input_contents", "%d contents of %d tensors", len(raw), len(r.GetInputs()))
	}
	for i, in := range r.GetInputs() {
		t, p := newTensor(in.GetName(), in.GetDatatype(), in.GetShape())
		if p == nil && len(raw) > 0 {
			if in.GetContents() != nil {
				return nil, invalid(in.GetName(), "there are contents beside the raw ones")
			}
			p = t.fromRaw(raw[i])
		} else if p == nil {
			p = t.fromContents(in.GetContents())
		}
		if p != nil {
			return nil, p
		}
		asked.inputs = append(asked.inputs, t)
	}
	for _, out := range r.GetOutputs() {
		asked.outputs = append(asked.outputs, out.GetName())
	}
	return asked, nil
}

// fromContents fills a tensor from the message's list for its datatype.
func (t *tensor) fromContents(c *pb.InferTensorContents) *serving.Problem {
	switch {
	case t.kind == bools:
		t.ints = make([]int64, len(c.GetBoolContents()))
		for i, b := range c.GetBoolContents() {
			if b {
				t.ints[i] = 1
			}
		}
	case t.kind == ints && datatypes[t.datatype].size == 8:
		t.ints = c.GetInt64Contents()
	case t.kind == ints:
		t.ints = widened(c.GetIntContents())
	case t.kind == uints && datatypes[t.datatype].size == 8:
		t.ints = widened(c.GetUint64Contents())
	case t.kind == uints:
		t.ints = widened(c.GetUintContents())
	case t.kind == floats && datatypes[t.datatype].size == 8:
		t.floats = c.GetFp64Contents()
	case t.kind == floats:
		t.floats = make([]float64, len(c.GetFp32Contents()))
		for i, f := range c.GetFp32Contents() {
			t.floats[i] = float64(f)
		}
	default:
		t.texts = make([]string, len(c.GetBytesContents()))
		for i, b := range c.GetBytesContents() {
			t.texts[i] = string(b)
		}
	}
	return t.full()
}

func widened[T int32 | uint32 | uint64](list []T) []int64 {
	out := make([]int64, len(list))
	for i, v := range list {
		out[i] = int64(v)
	}
	return out
}

// contents is an output as the message's list for its datatype.
func (t *tensor) contents() *pb.InferTensorContents {
	switch t.kind {
	case floats:
		return &pb.InferTensorContents{Fp64Contents: t.floats}
	case texts:
		b := make([][]byte, len(t.texts))
		for i, s := range t.texts {
			b[i] = []byte(s)
		}
		return &pb.InferTensorContents{BytesContents: b}
	default:
		return &pb.InferTensorContents{Int64Contents: t.ints}
	}
}

// health is gRPC's health checking protocol: the server as a whole (""), and the service; serving while every model has a champion.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	stage Stage
}

func (h *health) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if name := r.GetService(); name != "" && name != pb.GRPCInferenceService_ServiceDesc.ServiceName {
		return nil, status.Error(codes.NotFound, "there is no such service")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: h.status()}, nil
}

func (h *health) status() grpc_health_v1.HealthCheckResponse_ServingStatus {
	if h.stage.Ready() != nil {
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_SERVING
}

// Serve serves until ctx ends, and then for at most wait what is under way.
func Serve(ctx context.Context, s *grpc.Server, serve func() error, wait time.Duration) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		forced := time.AfterFunc(wait, s.Stop)
		defer forced.Stop()
		s.GracefulStop()
	}()
	if err := serve(); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	<-stopped
	return nil
}
