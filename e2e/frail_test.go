package e2e

import (
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/streams/broker"
)

// frailRedis is a Redis of the test's own, behind a proxy, that the test can take away: a redis-server where MILLRACE_TEST_REDIS says that
// there are real servers, else the embedded one, of which the proxy alone is stalled and cut off.
type frailRedis struct {
	*proxy
	server   *redisServer // nil: embedded
	embedded string       // its address
}

func startFrailRedis(t *testing.T) *frailRedis {
	t.Helper()
	if os.Getenv("MILLRACE_TEST_REDIS") != "" {
		server := startRedis(t)
		return &frailRedis{proxy: startProxy(t, server.addr()), server: server}
	}
	e, err := online.StartEmbedded("")
	must(t, err)
	t.Cleanup(func() { must(t, e.Close()) })
	return &frailRedis{proxy: startProxy(t, e.Addr()), embedded: e.Addr()}
}

// direct is its address without the proxy.
func (r *frailRedis) direct() string {
	if r.server != nil {
		return r.server.addr()
	}
	return r.embedded
}

// stop is SIGSTOP: connections stay open, new ones are taken, nothing is answered.
func (r *frailRedis) stop() {
	if r.server == nil {
		r.stall(true)
		return
	}
	must(r.server.t, r.server.cmd.Process.Signal(syscall.SIGSTOP))
}

// wake is SIGCONT.
func (r *frailRedis) wake() {
	if r.server == nil {
		r.stall(false)
		return
	}
	must(r.server.t, r.server.cmd.Process.Signal(syscall.SIGCONT))
}

// kill is SIGKILL.
func (r *frailRedis) kill() {
	if r.server == nil {
		r.point("")
		return
	}
	r.server.kill()
}

// revive starts it on what it kept.
func (r *frailRedis) revive() {
	if r.server == nil {
		r.point(r.embedded)
		return
	}
	r.server.start()
}

// frailKafka is a Kafka of the test's own that the test can take away: a broker of the script that MILLRACE_KAFKA_UP names, else the
// embedded one.
type frailKafka struct {
	t       *testing.T
	addr    string
	cluster *kafkaCluster // nil: embedded
	dir     string
	port    int
	broker  *broker.Broker
}

func startFrailKafka(t *testing.T) *frailKafka {
	t.Helper()
	k := &frailKafka{t: t}
	if os.Getenv("MILLRACE_KAFKA_UP") != "" {
		k.cluster = startKafka(t, 1)
		k.addr = k.cluster.addrs
		return k
	}
	k.dir, k.port = t.TempDir(), freePort(t)
	k.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(k.port))
	k.revive()
	t.Cleanup(k.kill)
	return k
}

// kill is SIGKILL; the embedded one closes its connections.
func (k *frailKafka) kill() {
	if k.cluster != nil {
		k.cluster.kill(k.t, 1)
		return
	}
	if k.broker != nil {
		k.broker.Close()
		k.broker = nil
	}
}

// revive starts it on what it kept.
func (k *frailKafka) revive() {
	k.t.Helper()
	if k.cluster != nil {
		k.cluster.restart(k.t, 1)
		return
	}
	deadline := time.Now().Add(patience)
	for { // the port may still be held by connections that are being closed
		b, err := broker.Start(k.dir, k.port)
		if err == nil {
			k.broker = b
			return
		}
		if time.Now().After(deadline) {
			k.t.Fatal(err)
		}
	}
}
