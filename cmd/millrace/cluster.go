package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consistency"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
	"github.com/millrace/millrace/training"
)

// folder is the flag of every verb that reads a project.
type folder struct {
	Project string `help:"Project folder: the one with millrace.yaml." env:"MILLRACE_PROJECT" type:"path" placeholder:"DIR"`
}

// load reads and checks the project; the working folder's without the flag.
func (f folder) load() (*project.Project, error) {
	dir := f.Project
	if dir == "" {
		dir = "."
	}
	return project.Load(dir)
}

// dataDir is the folder that the flag names, the project's own without it.
func dataDir(p *project.Project, flag string) string {
	if flag != "" {
		return flag
	}
	return filepath.Join(p.Dir, ".millrace")
}

// servers is the flags of every verb that talks to Kafka, Redis or the files.
type servers struct {
	folder `embed:""`

	Kafka                  []string `help:"Kafka brokers, HOST:PORT." env:"MILLRACE_KAFKA" placeholder:"HOST:PORT"`
	Redis                  []string `help:"Redis, HOST:PORT; several are the seeds of a cluster, or with --redis-master the Sentinels." env:"MILLRACE_REDIS" placeholder:"HOST:PORT"`
	SchemaRegistry         string   `help:"URL of the schema registry, for sources in the confluent format." env:"MILLRACE_SCHEMA_REGISTRY" placeholder:"URL"`
	SchemaRegistryUser     string   `help:"User of the schema registry." env:"MILLRACE_SCHEMA_REGISTRY_USER" placeholder:"NAME"`
	SchemaRegistryPassword string   `help:"Its password; better given by the environment." env:"MILLRACE_SCHEMA_REGISTRY_PASSWORD" placeholder:"TEXT"`
	DataDir                string   `help:"Folder of offline files and the model registry, shared by all roles (default: .millrace in the project)." env:"MILLRACE_DATA_DIR" type:"path" placeholder:"DIR"`
	Listen                 string   `help:"Address of the HTTP endpoint (default: 127.0.0.1:8080, or a free port when that is taken)." env:"MILLRACE_LISTEN" placeholder:"HOST:PORT"`

	KafkaTLS              bool   `help:"Connect to Kafka by TLS." env:"MILLRACE_KAFKA_TLS"`
	KafkaCA               string `help:"PEM file of the authorities that Kafka's certificate is trusted by." env:"MILLRACE_KAFKA_CA" type:"path" placeholder:"FILE"`
	KafkaMechanism        string `help:"SASL mechanism: plain, scram-sha-256 or scram-sha-512." env:"MILLRACE_KAFKA_MECHANISM" placeholder:"NAME"`
	KafkaUser             string `help:"SASL user." env:"MILLRACE_KAFKA_USER" placeholder:"NAME"`
	KafkaPassword         string `help:"SASL password; better given by the environment." env:"MILLRACE_KAFKA_PASSWORD" placeholder:"TEXT"`
	RedisCluster          bool   `help:"Redis is a cluster, even with one seed." env:"MILLRACE_REDIS_CLUSTER"`
	RedisMaster           string `help:"Name under which Sentinel knows the primary; --redis is then the Sentinels' addresses." env:"MILLRACE_REDIS_MASTER" placeholder:"NAME"`
	RedisTLS              bool   `help:"Connect to Redis by TLS." env:"MILLRACE_REDIS_TLS"`
	RedisCA               string `help:"PEM file of the authorities that Redis' certificate is trusted by." env:"MILLRACE_REDIS_CA" type:"path" placeholder:"FILE"`
	RedisUser             string `help:"Redis user." env:"MILLRACE_REDIS_USER" placeholder:"NAME"`
	RedisPassword         string `help:"Redis password; better given by the environment." env:"MILLRACE_REDIS_PASSWORD" placeholder:"TEXT"`
	RedisSentinelPassword string `help:"Password of the Sentinels themselves; better given by the environment." env:"MILLRACE_REDIS_SENTINEL_PASSWORD" placeholder:"TEXT"`

	KafkaPort int `help:"Port of the embedded Kafka." default:"0" env:"MILLRACE_KAFKA_PORT" placeholder:"PORT"`
}

// opening says what a verb needs.
type opening struct {
	kafka, redis bool
	embed        bool               // start in this process what no address is given for
	consistency  consistency.Config // of the monitor role's check; Every 0: none
	faces        faceFlags          // of the serve role
	edge         edgeFlags          // of a role's endpoint
}

// runtime is a project with its servers, as one process sees them.
type runtime struct {
	project    *project.Project
	own        schemas.OwnSet
	dataDir    string
	kafka      streams.Config
	redis      redis.UniversalClient
	addrs      []string // of Redis
	registry   *registry.Registry
	tables     project.Tables // what events are looked up in; loaded before the roles that do
	metrics    *prometheus.Registry
	registerer prometheus.Registerer // of metrics
	log        *slog.Logger
	listener   net.Listener
	grpc       net.Listener // nil without
	edge       edge
	mux        *http.ServeMux

	progress    training.Progress // of training runs; may be nil
	consistency consistency.Config

	closers []func() error
	closing sync.Once
}

// open loads the project and connects to what the verb needs. The caller closes the runtime.
func (s servers) open(ctx context.Context, env *environment, need opening) (*runtime, error) {
	p, err := s.load()
	if err != nil {
		return nil, err
	}
	rt := &runtime{project: p, own: p.Own(), log: env.log, consistency: need.consistency, dataDir: dataDir(p, s.DataDir), metrics: prometheus.NewRegistry(), mux: http.NewServeMux()}
	if err := s.connect(ctx, rt, need); err != nil {
		rt.close()
		return nil, err
	}
	return rt, nil
}

// connect fills a runtime. What it has opened is the runtime's to close, also after an error.
func (s servers) connect(ctx context.Context, rt *runtime, need opening) (err error) {
	rt.registerer = rt.metrics
	rt.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := os.MkdirAll(rt.dataDir, 0o755); err != nil {
		return failure.Wrap(failure.Unavailable, rt.dataDir, "making the data folder", err).WithHint("choose another with --data-dir")
	}
	if rt.registry, err = openRegistry(rt.dataDir); err != nil {
		return err
	}
	if need.kafka {
		if err := s.openKafka(ctx, rt, need.embed); err != nil {
			return err
		}
	}
	if need.redis {
		return s.openRedis(ctx, rt, need.embed)
	}
	return nil
}

func (s servers) kafkaConfig() streams.Config {
	return streams.Config{
		Brokers:  s.Kafka,
		TLS:      streams.TLS{Enabled: s.KafkaTLS || s.KafkaCA != "", CAFile: s.KafkaCA},
		SASL:     streams.SASL{Mechanism: s.KafkaMechanism, Username: s.KafkaUser, Password: s.KafkaPassword},
		Registry: streams.Registry{URL: s.SchemaRegistry, Username: s.SchemaRegistryUser, Password: s.SchemaRegistryPassword},
	}
}

func (s servers) redisConfig(addrs []string) online.Config {
	return online.Config{
		Addrs: addrs, Cluster: s.RedisCluster, Master: s.RedisMaster, SentinelPassword: s.RedisSentinelPassword,
		TLS: s.RedisTLS || s.RedisCA != "", CAFile: s.RedisCA, Username: s.RedisUser, Password: s.RedisPassword,
	}
}

func (s servers) openKafka(ctx context.Context, rt *runtime, embed bool) error {
	rt.kafka = s.kafkaConfig()
	if len(s.Kafka) == 0 {
		if !embed {
			return failure.New(failure.BadRequest, "--kafka", "no address given").
				WithHint("give --kafka HOST:PORT or MILLRACE_KAFKA; millrace up embeds one")
		}
		b, err := broker.Start(filepath.Join(rt.dataDir, "kafka"), s.KafkaPort)
		if err != nil {
			return err
		}
		rt.onClose(func() error { b.Close(); return nil })
		rt.kafka.Compression = "none"
		rt.kafka.Brokers = []string{b.Addr()}
	}
	client, err := rt.kafkaClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return streams.Reach(ctx, rt.kafka, client)
}

func (s servers) openRedis(ctx context.Context, rt *runtime, embed bool) error {
	rt.addrs = s.Redis
	if len(s.Redis) == 0 {
		if !embed {
			return failure.New(failure.BadRequest, "--redis", "no address given").
				WithHint("give --redis HOST:PORT or MILLRACE_REDIS; millrace up embeds one")
		}
		r, err := online.StartEmbedded(filepath.Join(rt.dataDir, "redis.snapshot"))
		if err != nil {
			return err
		}
		rt.onClose(r.Close)
		rt.addrs = []string{r.Addr()}
	}
	client, err := online.Open(ctx, s.redisConfig(rt.addrs))
	if err != nil {
		return err
	}
	rt.redis = client
	rt.onClose(client.Close)
	return nil
}

// kafkaClient connects to the project's Kafka. The caller closes the client.
func (rt *runtime) kafkaClient(_ context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	return streams.NewClient(rt.kafka, opts...)
}

// ensureTopics creates the project's topics where they are missing.
func (rt *runtime) ensureTopics(ctx context.Context) error {
	client, err := rt.kafkaClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return streams.EnsureTopics(ctx, client, rt.project.Topology())
}

func (rt *runtime) path(file string) string { return filepath.Join(rt.project.Dir, file) }
func (rt *runtime) offlineDir() string      { return filepath.Join(rt.dataDir, "offline") }
func (rt *runtime) withKafka() bool         { return len(rt.kafka.Brokers) > 0 }
func (rt *runtime) redisAddr() string       { return rt.addrs[0] }
func (rt *runtime) endpoint() string {
	if rt.listener == nil {
		return ""
	}
	if rt.edge.tls != nil {
		return "https://" + rt.listener.Addr().String()
	}
	return "http://" + rt.listener.Addr().String()
}

func (rt *runtime) onClose(fn func() error) { rt.closers = append(rt.closers, fn) }

// close ends what was opened, the last first.
func (rt *runtime) close() {
	rt.closing.Do(func() {
		for i := len(rt.closers) - 1; i >= 0; i-- {
			if err := rt.closers[i](); err != nil {
				rt.log.Error("closing", "err", err)
			}
		}
	})
}

// defaultListen is the endpoint where none is given.
const defaultListen = "127.0.0.1:8080"

// listen opens the endpoint. A default port that is taken gives way to a free one, so that any number of roles and replicas
// start on one machine; an address that was asked for does not.
func (s servers) listen(ctx context.Context, rt *runtime) error {
	var lc net.ListenConfig
	address := s.Listen
	if address == "" {
		address = defaultListen
	}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil && s.Listen == "" {
		l, err = lc.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return failure.Wrap(failure.Unavailable, address, "listening", err).WithHint("choose another address with --listen")
	}
	rt.listener = l
	rt.onClose(func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return nil
}

// announce tells where a long-running verb can be reached.
func (rt *runtime) announce(env *environment, what string) {
	connected := ""
	if rt.withKafka() {
		connected += ", Kafka " + rt.kafka.Brokers[0]
	}
	if rt.redis != nil {
		connected += ", Redis " + rt.redisAddr()
	}
	fmt.Fprintf(env.out, "%s: project %s%s, endpoint %s, files %s\n", what, rt.project.Name, connected, rt.endpoint(), rt.dataDir)
	if rt.edge.health != nil {
		fmt.Fprintf(env.out, "%s: health http://%s\n", what, rt.edge.health.Addr())
	}
	if rt.grpc != nil {
		fmt.Fprintf(env.out, "%s: gRPC %s\n", what, rt.grpc.Addr())
	}
}
