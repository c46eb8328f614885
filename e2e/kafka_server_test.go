package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// kafkaCluster is an Apache Kafka of several brokers, started by the script that MILLRACE_KAFKA_UP names:
//
//	kafka-up -n BROKERS -p FIRST_PORT -d DIR    prints the addresses
//	kafka-up -d DIR kill N | start N            one broker, from 1
type kafkaCluster struct {
	t      *testing.T
	script string
	dir    string
	addrs  string
}

func startKafka(t *testing.T, brokers int) *kafkaCluster {
	t.Helper()
	k := &kafkaCluster{t: t, script: os.Getenv("MILLRACE_KAFKA_UP"), dir: t.TempDir()}
	if k.script == "" {
		t.Fatal("MILLRACE_KAFKA_UP must name the script that starts Kafka")
	}
	t.Cleanup(k.stop)
	addrs, err := k.run("-n", strconv.Itoa(brokers), "-p", strconv.Itoa(freePorts(t, brokers)), "-d", k.dir)
	must(t, err)
	k.addrs = addrs
	return k
}

// freePorts finds a port that is free with the n-1 after it; the controller's is 1000 above the first.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	free := func(port int) bool {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
		}
		return err == nil
	}
search:
	for first := 21000; first < 29000; first += 10 {
		if !free(first + 1000) {
			continue
		}
		for i := range n {
			if !free(first + i) {
				continue search
			}
		}
		return first
	}
	t.Fatal("no free ports for Kafka")
	return 0
}

func (k *kafkaCluster) run(args ...string) (string, error) {
	cmd := exec.Command(k.script, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// kill is SIGKILL for a broker, counted from 1.
func (k *kafkaCluster) kill(t *testing.T, broker int) {
	t.Helper()
	_, err := k.run("-d", k.dir, "kill", strconv.Itoa(broker))
	must(t, err)
}

// restart starts a killed broker on its data and waits until it answers, longer than the script does: it has a log to recover.
func (k *kafkaCluster) restart(t *testing.T, broker int) {
	t.Helper()
	if _, err := k.run("-d", k.dir, "start", strconv.Itoa(broker)); err == nil {
		return
	}
	port, err := os.ReadFile(filepath.Join(k.dir, fmt.Sprintf("broker-%d.port", broker)))
	must(t, err)
	eventually(t, 4*patience, func() (bool, string) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
		if err == nil {
			conn.Close()
			return true, ""
		}
		log, _ := os.ReadFile(filepath.Join(k.dir, fmt.Sprintf("broker-%d.log", broker)))
		return false, fmt.Sprintf("broker %d does not answer; its log ends with %s", broker, log[max(0, len(log)-4000):])
	})
}

// stop ends all brokers at once: nothing of theirs is needed any more.
func (k *kafkaCluster) stop() {
	pids, err := filepath.Glob(filepath.Join(k.dir, "broker-*.pid"))
	must(k.t, err)
	for _, file := range pids {
		text, err := os.ReadFile(file)
		must(k.t, err)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			k.awaitEnd(pid)
		}
	}
}

// awaitEnd waits until a process is gone, or is only waited for by its parent.
func (k *kafkaCluster) awaitEnd(pid int) {
	eventually(k.t, patience, func() (bool, string) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z "), fmt.Sprintf("process %d is still there", pid)
	})
}
