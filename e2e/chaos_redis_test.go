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
	"testing"

	"github.com/redis/go-redis/v9"
)

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
