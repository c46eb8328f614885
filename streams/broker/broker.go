package broker

import (
	"os"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/internal/failure"
)

// Broker is an embedded Kafka broker on 127.0.0.1.
type Broker struct {
	cluster *kfake.Cluster
	ghosts  *ghosts
	lock    *os.File // nil without a directory
}

// Start starts a broker that keeps its data in dir (created when missing; empty keeps it in memory) and listens on the port (0: any
// free one). Errors are of kind Unavailable.
func Start(dir string, port int) (*Broker, error) {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.Ports(port),
		kfake.ClusterID("millrace"),
		// Retention goes by record timestamps, and these are event times, of a replayed past as well: nothing is deleted unless a
		// topic says so.
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1"}),
	}
	b := &Broker{}
	if dir != "" {
		lock, err := lockDir(dir)
		if err != nil {
			return nil, err
		}
		b.lock = lock
		opts = append(opts, kfake.DataDir(dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		b.unlock()
		return nil, failure.Wrap(failure.Unavailable, "embedded Kafka", "starting", err).WithHint("is the port taken, or the disk full?")
	}
	b.cluster = cluster
	if b.ghosts, err = watchGhosts(cluster); err != nil {
		cluster.Close()
		b.unlock()
		return nil, failure.Wrap(failure.Internal, "embedded Kafka", "watching its groups", err)
	}
	return b, nil
}

// Addr is the address it listens on, as host:port.
func (b *Broker) Addr() string { return b.cluster.ListenAddrs()[0] }

// Close stops it. Clients should have stopped before: what they have not been answered is lost to them.
func (b *Broker) Close() {
	b.ghosts.close()
	b.cluster.Close()
	b.unlock()
}

func (b *Broker) unlock() {
	if b.lock != nil {
		b.lock.Close()
	}
}
