package main

import (
	"context"
	"net"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/serving"
	"github.com/millrace/millrace/serving/feast"
	"github.com/millrace/millrace/serving/openapi"
	"github.com/millrace/millrace/serving/openinference"
)

// faceFlags are those of the roles that answer scores.
type faceFlags struct {
	GRPC string `name:"grpc" help:"Address of the Open Inference Protocol over gRPC; none without it." env:"MILLRACE_GRPC" placeholder:"HOST:PORT"`
}

// listenGRPC opens the gRPC endpoint where one is asked for.
func (f faceFlags) listenGRPC(ctx context.Context, rt *runtime) error {
	if f.GRPC == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", f.GRPC)
	if err != nil {
		return failure.Wrap(failure.Unavailable, f.GRPC, "listening", err).WithHint("choose another address with --grpc")
	}
	rt.grpc = l
	rt.onClose(func() error { _ = l.Close(); return nil }) // closed already, where it was served
	return nil
}

// maxStreams of one gRPC connection.
const maxStreams = 256

// withFaces puts the protocols of others beside the stage's own, and gives what runs them with the stage.
func (rt *runtime) withFaces(s *serving.Stage) (func(context.Context) error, error) {
	openinference.Routes(rt.mux, s, version())
	if len(rt.kafka.Brokers) > 0 {
		if err := rt.withServers(s); err != nil {
			return nil, err
		}
	}
	if rt.grpc == nil {
		return s.Run, nil
	}
	options := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(openinference.Interceptor(s, clock.System), openinference.Guarded(rt.edge.guard)),
		grpc.MaxRecvMsgSize(int(serving.Default().MaxBody)), grpc.MaxHeaderListSize(maxHeader), grpc.ConnectionTimeout(headerTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout}), grpc.MaxConcurrentStreams(maxStreams),
	}
	if rt.edge.tls != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(rt.edge.tls)))
	}
	server := grpc.NewServer(options...)
	openinference.Register(server, s, version(), clock.System)
	return func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return s.Run(ctx) })
		g.Go(func() error {
			return openinference.Serve(ctx, server, func() error { return server.Serve(netutil.LimitListener(rt.grpc, maxConnections)) }, shutdownTimeout)
		})
		return g.Wait()
	}, nil
}

// withServers puts the faces on the endpoint that read features or push events, and the description of all.
func (rt *runtime) withServers(s *serving.Stage) error {
	pusher, err := feast.NewPusher(rt.project, rt.kafka)
	if err != nil {
		return err
	}
	rt.onClose(func() error { pusher.Close(); return nil })
	feast.Routes(rt.mux, s, pusher)
	openapi.Routes(rt.mux, s, version(), pusher.Sources())
	return nil
}
