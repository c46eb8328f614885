package online

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/internal/failure"
)

// Config says where Redis is.
type Config struct {
	Addrs              []string // host:port; several are the seeds of one cluster
	Cluster            bool     // Redis Cluster, even with one seed
	Username, Password string
	TLS                bool
	DB                 int           // ignored by a cluster
	PoolSize           int           // connections per server; 0 leaves it to the client (10 per core)
	Timeout            time.Duration // of one read or write on a connection; 0 is DefaultTimeout
}

// DefaultTimeout is how long one read or write on a connection may take.
const DefaultTimeout = 3 * time.Second

// Validate gives every fault at once.
func (c Config) Validate() error {
	var faults []error
	if len(c.Addrs) == 0 {
		faults = append(faults, failure.New(failure.BadProject, "redis", "no address given").WithHint("set --redis HOST:PORT"))
	}
	for _, a := range c.Addrs {
		if _, _, err := net.SplitHostPort(a); err != nil {
			faults = append(faults, failure.Wrap(failure.BadProject, "redis", "reading address "+a, err).WithHint("write it as HOST:PORT"))
		}
	}
	if len(c.Addrs) > 1 && c.DB != 0 {
		faults = append(faults, failure.New(failure.BadProject, "redis", "a cluster has only database 0, not %d", c.DB))
	}
	return errors.Join(faults...)
}

// Open connects and asks whether Redis answers. A server that evicts keys is refused, since lost states could not be told from
// entities never seen; one that will not say (ACL, managed service) is trusted.
func Open(ctx context.Context, c Config) (redis.UniversalClient, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	client := redis.NewUniversalClient(c.options())
	if err := client.Ping(ctx).Err(); err != nil {
		_ = client.Close()
		return nil, failure.Wrap(failure.Unavailable, "redis "+c.Addrs[0], "connecting", err).WithHint("is Redis running, and is the address right?")
	}
	policy, err := client.ConfigGet(ctx, "maxmemory-policy").Result()
	if p, ok := policy["maxmemory-policy"]; err == nil && ok && p != "noeviction" {
		_ = client.Close()
		return nil, failure.New(failure.BadProject, "redis "+c.Addrs[0], "maxmemory-policy is %s: states would vanish unseen", p).
			WithHint("CONFIG SET maxmemory-policy noeviction")
	}
	return client, nil
}

func (c Config) options() *redis.UniversalOptions {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	o := &redis.UniversalOptions{
		Addrs: c.Addrs, IsClusterMode: c.Cluster, Username: c.Username, Password: c.Password, DB: c.DB,
		PoolSize: c.PoolSize, DialTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout, ContextTimeoutEnabled: true,
	}
	if c.TLS {
		host, _, _ := net.SplitHostPort(c.Addrs[0])
		o.TLSConfig = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	}
	return o
}

// answering turns an error of the Redis client into ours: it did not answer, or there was not enough time.
func answering(doing string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return failure.Wrap(failure.Deadline, "redis", doing, err)
	}
	return failure.Wrap(failure.Unavailable, "redis", doing, err)
}
