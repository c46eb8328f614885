package online

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/internal/failure"
)

// Config says where Redis is.
type Config struct {
	Addrs              []string // host:port; several are the seeds of one cluster, or with Master the Sentinels
	Cluster            bool     // Redis Cluster, even with one seed
	Master             string   // the name under which Sentinel knows the primary; empty: no Sentinel
	SentinelPassword   string   // of the Sentinels themselves
	Username, Password string
	TLS                bool
	CAFile             string        // PEM of the authorities that its certificate is trusted by; empty trusts the system's
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
	if c.Cluster && c.Master != "" {
		faults = append(faults, failure.New(failure.BadProject, "redis", "is either a cluster or watched by Sentinel, not both").
			WithHint("a cluster fails over by itself: leave out the name of the primary"))
	}
	if len(c.Addrs) > 1 && c.Master == "" && c.DB != 0 {
		faults = append(faults, failure.New(failure.BadProject, "redis", "a cluster has only database 0, not %d", c.DB))
	}
	return errors.Join(faults...)
}

// Open connects and asks whether Redis answers. A server that evicts keys is refused (CheckPolicy).
func Open(ctx context.Context, c Config) (redis.UniversalClient, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	options, err := c.options()
	if err != nil {
		return nil, err
	}
	client := redis.NewUniversalClient(options)
	if err := client.Ping(ctx).Err(); err != nil {
		_ = client.Close()
		return nil, refused(c.Addrs[0], err)
	}
	if err := CheckPolicy(ctx, client); err != nil {
		_ = client.Close()
		return nil, err
	}
	if err := client.Eval(ctx, "return redis.call('TIME')", nil).Err(); err != nil && notAllowed(err) {
		_ = client.Close()
		return nil, failure.Wrap(failure.BadProject, "redis "+c.Addrs[0], "asking a script for the time", err).
			WithHint("the ACL user needs +time; docs/redis.md has all that it needs")
	}
	return client, nil
}

// CheckPolicy refuses (BadProject) a server that evicts keys, of a cluster any primary that does: lost states could not be told from entities never
// seen. One that will not say (ACL, managed service, no answer) is trusted.
func CheckPolicy(ctx context.Context, client redis.UniversalClient) error {
	of := func(ctx context.Context, one *redis.Client) error {
		policy, err := one.ConfigGet(ctx, "maxmemory-policy").Result()
		if p, ok := policy["maxmemory-policy"]; err == nil && ok && p != "noeviction" {
			return failure.New(failure.BadProject, "redis "+one.Options().Addr, "maxmemory-policy is %s: states would vanish unseen", p).
				WithHint("CONFIG SET maxmemory-policy noeviction, and enough maxmemory")
		}
		return nil
	}
	var err error
	switch c := client.(type) { // what Open makes
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, of)
	case *redis.Client:
		err = of(ctx, c)
	}
	if failure.Of(err) == failure.BadProject {
		return err
	}
	return nil
}

// refused says why there is no connection, and what to do about it.
func refused(addr string, err error) error {
	kind, hint := failure.Unavailable, "is Redis running, and is the address right?"
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		kind, hint = failure.BadProject, "name the authority of its certificate with --redis-ca"
	case redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "NOAUTH"):
		kind, hint = failure.BadProject, "are --redis-user and --redis-password right?"
	case redis.HasErrorPrefix(err, "NOPERM"):
		kind, hint = failure.BadProject, moreRights
	case hintOf(err) != "":
		hint = hintOf(err)
	}
	return failure.Wrap(kind, "redis "+addr, "connecting", err).WithHint("%s", hint)
}

func (c Config) options() (*redis.UniversalOptions, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	o := &redis.UniversalOptions{
		Addrs: c.Addrs, IsClusterMode: c.Cluster, MasterName: c.Master, SentinelPassword: c.SentinelPassword,
		Username: c.Username, Password: c.Password, DB: c.DB,
		PoolSize: c.PoolSize, DialTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout, ContextTimeoutEnabled: true,
		Protocol: 2, // nothing here is told apart by RESP3's types, and the client looks for its notifications before each reply
	}
	if !c.TLS {
		return o, nil
	}
	// Each server of a cluster, and the primary that Sentinel names, has a certificate for its own name: the client takes the name
	// from the address that it dials.
	o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile == "" {
		return o, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, failure.Wrap(failure.BadProject, c.CAFile, "reading certificate authorities", err)
	}
	o.TLSConfig.RootCAs = x509.NewCertPool()
	if !o.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
		return nil, failure.New(failure.BadProject, c.CAFile, "holds no certificate in PEM")
	}
	return o, nil
}
