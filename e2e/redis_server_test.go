package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
