package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/streams/broker"
)

// childDir makes the test binary run a broker and nothing else: the process that gets killed.
const childDir = "MILLRACE_BROKER_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		port, _ := strconv.Atoi(os.Getenv(childDir + "_PORT"))
		b, err := broker.Start(dir, port)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(b.Addr())
		select {}
	}
	os.Exit(m.Run())
}

func startChild(t *testing.T, dir string, port int) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childDir+"_PORT="+strconv.Itoa(port))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if want := fmt.Sprintf("127.0.0.1:%d\n", port); err != nil || line != want {
		t.Fatalf("child says %q, %v, want %q", line, err, want)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(kill)
	return kill
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestSurvivesSIGKILL kills the broker's process while records are being written, three times on one directory and port. Every
// record and offset that was acknowledged must be there afterwards, once and in order.
func TestSurvivesSIGKILL(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dir, port := t.TempDir(), freePort(t)
	addr := "127.0.0.1:" + strconv.Itoa(port)
	acked := map[string]bool{}
	committed := int64(-1)
	const rounds = 3
	for round := range rounds {
		kill := startChild(t, dir, port)
		client, err := kgo.NewClient(kgo.SeedBrokers(addr))
		if err != nil {
			t.Fatal(err)
		}
		admin := kadm.NewClient(client)
		if round == 0 {
			if _, err := admin.CreateTopic(ctx, 1, 1, nil, "events"); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		enough := make(chan struct{})
		count := 0
		sending, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; sending.Err() == nil; i++ {
				value := fmt.Sprintf("%d-%d", round, i)
				client.Produce(sending, &kgo.Record{Topic: "events", Value: []byte(value), Timestamp: time.UnixMilli(1_000_000)}, func(_ *kgo.Record, err error) {
					if err != nil {
						return
					}
					mu.Lock()
					defer mu.Unlock()
					acked[value] = true
					if count++; count == 5000 {
						close(enough)
					}
				})
			}
		})
		select {
		case <-enough:
		case <-ctx.Done():
			t.Fatal("records are not acknowledged")
		}
		mu.Lock()
		next := int64(len(acked))
		mu.Unlock()
		if err := admin.CommitAllOffsets(ctx, "group", kadm.Offsets{"events": {0: {Topic: "events", Partition: 0, At: next, LeaderEpoch: -1}}}); err != nil {
			t.Fatal(err)
		}
		committed = next
		kill() // in the middle: the sender is still at it
		stop()
		wg.Wait()
		client.CloseAllowingRebalance()
	}

	startChild(t, dir, port)
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("events"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, "events")
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup("events", 0)
	seen := map[string]bool{}
	last := [rounds]int{}
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var round, i int
			fmt.Sscanf(string(r.Value), "%d-%d", &round, &i)
			if seen[string(r.Value)] || i < last[round] || r.Offset != next {
				t.Fatalf("record %s at %d is a duplicate or out of order", r.Value, r.Offset)
			}
			seen[string(r.Value)], last[round] = true, i
			next = r.Offset + 1
		})
	}
	for value := range acked {
		if !seen[value] {
			t.Fatalf("acknowledged record %s is lost (%d acknowledged, %d there)", value, len(acked), len(seen))
		}
	}
	offsets, err := kadm.NewClient(client).FetchOffsets(ctx, "group")
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := offsets.Lookup("events", 0); o.At != committed {
		t.Fatalf("committed offset is %d, want %d", o.At, committed)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	b, err := broker.Start(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := broker.Start(dir, 0); err == nil || failure.Of(err) != failure.Unavailable {
		if err == nil {
			second.Close()
		}
		t.Fatalf("a second broker on the directory: %v, want Unavailable", err)
	}
	b.Close()
	again, err := broker.Start(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestPortTaken(t *testing.T) {
	port := freePort(t)
	b, err := broker.Start("", port)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if want := "127.0.0.1:" + strconv.Itoa(port); b.Addr() != want {
		t.Errorf("listens on %s, want %s", b.Addr(), want)
	}
	if _, err := broker.Start("", port); failure.Of(err) != failure.Unavailable {
		t.Errorf("a second broker on the port: %v, want Unavailable", err)
	}
}
