//go:build chaos

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience is how long a server may take to come up or to notice something.
const patience = 30 * time.Second

// redisServer is a redis-server of the test's own, on a port that it keeps over restarts.
type redisServer struct {
	t        *testing.T
	dir      string
	port     int
	args     []string
	password string
	cmd      *exec.Cmd
	client   *redis.Client // of the test itself
}

// startRedis starts a Redis that keeps an append-only file; args are added to its command line.
func startRedis(t *testing.T, args ...string) *redisServer {
	t.Helper()
	s := &redisServer{t: t, dir: t.TempDir(), port: freePort(t), args: args}
	for i, a := range args {
		if a == "--requirepass" {
			s.password = args[i+1]
		}
	}
	s.client = redis.NewClient(&redis.Options{Addr: s.addr(), Password: s.password, MaxRetries: -1})
	t.Cleanup(func() {
		s.client.Close()
		s.kill()
	})
	s.start()
	return s
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *redisServer) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// start runs the server on what it kept, and waits until it has loaded that.
func (s *redisServer) start() {
	s.t.Helper()
	args := append([]string{"--port", strconv.Itoa(s.port), "--dir", s.dir, "--save", "", "--appendonly", "yes"}, s.args...)
	s.run(args...)
	s.await("to answer", func() bool { return s.client.Ping(context.Background()).Err() == nil })
}

func (s *redisServer) run(args ...string) {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.Dir = s.dir
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(s.t, err)
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	must(s.t, s.cmd.Start())
}

func (s *redisServer) await(what string, ok func() bool) {
	s.t.Helper()
	eventually(s.t, patience, func() (bool, string) {
		if ok() {
			return true, ""
		}
		log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		return false, fmt.Sprintf("waiting for Redis %s %s; its log ends with %s", s.addr(), what, log[max(0, len(log)-2000):])
	})
}

// kill is SIGKILL.
func (s *redisServer) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}

func (s *redisServer) do(args ...any) string {
	s.t.Helper()
	v, err := s.client.Do(context.Background(), args...).Result()
	if err != nil {
		s.t.Fatalf("Redis %s, %v: %v", s.addr(), args, err)
	}
	return fmt.Sprint(v)
}

// info is a field of a section of INFO; empty when the server does not say.
func (s *redisServer) info(section, field string) string {
	text, err := s.client.Info(context.Background(), section).Result()
	if err != nil {
		return ""
	}
	m := regexp.MustCompile(`(?m)^` + field + `:(.*?)\r?$`).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1]
}

// replicated is how far the server has come in the primary's writes, in bytes.
func (s *redisServer) replicated(field string) int64 {
	n, _ := strconv.ParseInt(s.info("replication", field), 10, 64)
	return n
}

// follow makes the server the replica of the one at the address, and waits until it has everything.
func (s *redisServer) follow(addr string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	s.do("REPLICAOF", host, port)
	s.await("to follow "+addr, func() bool { return s.info("replication", "master_link_status") == "up" })
}

// startSentinel starts a Sentinel that watches a primary under a name.
func startSentinel(t *testing.T, name string, primary *redisServer) *redisServer {
	t.Helper()
	s := &redisServer{t: t, dir: t.TempDir(), port: freePort(t)}
	s.client = redis.NewClient(&redis.Options{Addr: s.addr(), MaxRetries: -1})
	config := filepath.Join(s.dir, "sentinel.conf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `port %d
sentinel monitor %[2]s 127.0.0.1 %[3]d 1
sentinel auth-pass %[2]s %[4]s
sentinel down-after-milliseconds %[2]s 2000
sentinel failover-timeout %[2]s 10000
`, s.port, name, primary.port, primary.password), 0o644))
	t.Cleanup(func() {
		s.client.Close()
		s.kill()
	})
	s.run(config, "--sentinel")
	s.await("to know the replica", func() bool {
		replicas, err := s.client.Do(context.Background(), "SENTINEL", "REPLICAS", name).Slice()
		return err == nil && len(replicas) == 1
	})
	return s
}

// redisCluster is a Redis Cluster of three primaries; the first one has a replica.
type redisCluster struct {
	t       *testing.T
	nodes   []*redisServer // three primaries, then the replica
	replica *redisServer
}

func startRedisCluster(t *testing.T) *redisCluster {
	t.Helper()
	c := &redisCluster{t: t}
	for range 4 {
		c.nodes = append(c.nodes, startRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", strconv.Itoa(freePort(t))))
	}
	c.replica = c.nodes[3]
	c.cli("--cluster", "create", c.nodes[0].addr(), c.nodes[1].addr(), c.nodes[2].addr(), "--cluster-yes")
	c.cli("--cluster", "add-node", c.replica.addr(), c.nodes[0].addr(), "--cluster-slave", "--cluster-master-id", c.id(0))
	c.await("all nodes to agree", func() bool {
		for _, n := range c.nodes {
			if n.info("cluster", "cluster_enabled") != "1" || !strings.Contains(n.do("CLUSTER", "INFO"), "cluster_state:ok") || strings.Count(n.do("CLUSTER", "NODES"), "connected") < 4 {
				return false
			}
		}
		return c.replica.info("replication", "master_link_status") == "up"
	})
	return c
}

func (c *redisCluster) await(what string, ok func() bool) {
	c.t.Helper()
	eventually(c.t, patience, func() (bool, string) { return ok(), "waiting for " + what })
}

// seeds is the cluster's addresses as --redis takes them.
func (c *redisCluster) seeds() string {
	return strings.Join([]string{c.nodes[0].addr(), c.nodes[1].addr(), c.nodes[2].addr()}, ",")
}

func (c *redisCluster) id(node int) string { return c.nodes[node].do("CLUSTER", "MYID") }

func (c *redisCluster) cli(args ...string) {
	c.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("redis-cli", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("redis-cli %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
}

// move gives n slots of one primary to another, keys and all, while they are in use.
func (c *redisCluster) move(n, from, to int) {
	c.t.Helper()
	c.cli("--cluster", "reshard", c.nodes[to].addr(), "--cluster-from", c.id(from), "--cluster-to", c.id(to),
		"--cluster-slots", strconv.Itoa(n), "--cluster-yes", "--cluster-timeout", "5000")
}
