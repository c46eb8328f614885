package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The cores: the server has one to itself, all else shares the other.
const (
	serverCore = "0"
	clientCore = "1"
)

// process is a server, with the processes that it started.
type process struct {
	cmd *exec.Cmd
	log string // file
}

func start(work, name, core string, env []string, stdin []byte, args ...string) (*process, error) {
	p := &process{cmd: exec.Command("taskset", append([]string{"-c", core}, args...)...), log: filepath.Join(work, name+".log")}
	file, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p.cmd.Stdin = bytes.NewReader(stdin)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = work, file, file, append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return p, p.cmd.Start()
}

// stop ends a server and what it started, and waits for it.
func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	late := time.AfterFunc(15*time.Second, func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	_ = p.cmd.Wait() // how it took the signal is its own affair
}

// ready waits until a server answers.
func (p *process) ready(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		_, err := t.ask(ctx, 0)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s does not answer: %w\n%s", p.cmd, err, text[max(0, len(text)-4000):])
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// group is the ids of the server's processes.
func (p *process) group() []string {
	var ids []string
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range all {
		if fields := statOf(file); len(fields) > 2 && fields[2] == strconv.Itoa(p.cmd.Process.Pid) {
			ids = append(ids, filepath.Base(filepath.Dir(file)))
		}
	}
	return ids
}

// statOf is the fields of a stat file behind the command's name: state, parent, group, … (proc_pid_stat(5)).
func statOf(file string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// cpu is the user and system time that the server has had, to a hundredth of a second.
func (p *process) cpu() time.Duration {
	ticks := 0
	for _, id := range p.group() {
		if fields := statOf("/proc/" + id + "/stat"); len(fields) > 14 {
			for _, field := range fields[11:15] { // its own, and those of children it has waited for
				n, _ := strconv.Atoi(field)
				ticks += n
			}
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// rss is the resident memory now, in MiB.
func (p *process) rss() float64 {
	pages := 0
	for _, id := range p.group() {
		text, err := os.ReadFile("/proc/" + id + "/statm")
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
			n, _ := strconv.Atoi(fields[1])
			pages += n
		}
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// freeAddr is an address that nobody listens on.
func freeAddr() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	return l.Addr().String(), port, err
}

func (b *bench) startMillrace(addr string) (*process, error) {
	return start(b.work, "millrace", serverCore, []string{"GOMAXPROCS=1"}, nil, b.millrace, "serve", "--project", b.dir, "--data-dir", b.data(),
		"--kafka", b.kafka, "--redis", b.redis, "--listen", addr)
}

// startMLServer serves the very forest, as LightGBM's text, in MLServer's own process (with parallel_workers above 0 each request takes
// the way through a queue to another one and costs more).
func (b *bench) startMLServer(addr, port string, forest []byte) (*process, error) {
	dir := filepath.Join(b.work, "mlserver")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	_, grpc, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, metrics, err := freeAddr()
	if err != nil {
		return nil, err
	}
	settings := map[string]any{"host": "127.0.0.1", "http_port": number(port), "grpc_port": number(grpc), "metrics_port": number(metrics), "parallel_workers": 0}
	of := map[string]any{"name": "score", "implementation": "mlserver_lightgbm.LightGBMModel", "parameters": map[string]any{"uri": "./model.bst", "version": "v1"}}
	for name, v := range map[string]any{"settings.json": settings, "model-settings.json": of} {
		text, err := json.Marshal(v)
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, name), text, 0o600)); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "model.bst"), forest, 0o600); err != nil {
		return nil, err
	}
	return start(b.work, "mlserver-log", serverCore, []string{"OMP_NUM_THREADS=1"}, nil, filepath.Join(b.venv, "mlserver", "bin", "mlserver"), "start", dir)
}

func number(port string) int {
	n, _ := strconv.Atoi(port)
	return n
}

// startFeast writes the features through Feast's own library and serves them. It keeps one worker for ever: by default Feast ends it after
// a thousand requests, and some of the next wait for a second.
func (b *bench) startFeast(ctx context.Context, port string) (*process, error) {
	repo := filepath.Join(b.work, "feast")
	python := filepath.Join(b.venv, "feast", "bin", "python")
	cmd := exec.CommandContext(ctx, python, filepath.Join(b.dir, "feast_repo.py"), repo, b.redis, strconv.Itoa(entities))
	cmd.Env = append(os.Environ(), "FEAST_USAGE=False")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("preparing Feast: %w\n%s", err, out)
	}
	return start(b.work, "feast-log", serverCore, []string{"FEAST_USAGE=False"}, nil, filepath.Join(b.venv, "feast", "bin", "feast"), "--chdir", repo, "serve",
		"--host", "127.0.0.1", "--port", port, "--workers", "1", "--max-requests", "0", "--no-access-log")
}

func (b *bench) startRedis(ctx context.Context) (*process, error) {
	addr, port, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := start(b.work, "redis", clientCore, nil, nil, "redis-server", "--port", port, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, err
	}
	b.redis = addr
	for range 100 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			return p, conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.stop()
	return nil, fmt.Errorf("redis-server does not answer at %s", addr)
}
