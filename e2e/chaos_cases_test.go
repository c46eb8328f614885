//go:build chaos

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

var chaosCases = []chaosCase{
	{"worker killed", true, 3, oneRedis, killWorkers},
	{"worker frozen", true, 2, oneRedis, freezeWorkers},
	{"workers come and go", false, 1, oneRedis, scaleWorkers},
	{"broker killed", true, 2, oneRedis, killBrokers},
	{"Redis killed", false, 2, oneRedis, killRedis},
	{"Redis gone for 30 s", false, 2, oneRedis, loseRedis},
	{"Redis emptied", false, 2, oneRedis, flushRedis},
	{"Redis failover behind an address", true, 2, replicatedRedis, failOver},
	{"Redis failover by Sentinel", false, 2, watchedRedis, failOverBySentinel},
	{"Redis Cluster", true, 2, clusteredRedis, shakeCluster},
	{"Redis slow", false, 2, distantRedis, slowRedis},
	{"disk full", false, 2, smallDisk, fillDisk},
}

// chaosRedis is the Redis servers of a case, and the networks between them (link) and before them (address).
type chaosRedis struct {
	server, replica, sentinel *redisServer
	link, address             *proxy
	cluster                   *redisCluster
}

func oneRedis(o *ordeal) string {
	o.chaosRedis.server = startRedis(o.t)
	return o.chaosRedis.server.addr()
}

// killWorkers kills one of three workers at random times, by SIGKILL, and starts another at once: every fifth time when all are at work again,
// else mostly while the group is still sharing out what the last one had.
func killWorkers(o *ordeal) string {
	kills := o.times(20, 4)
	for kill := range kills {
		if kill%5 == 0 {
			o.recover()
		}
		o.pass(100*time.Millisecond, 4*time.Second)
		i := o.random.IntN(len(o.workers))
		o.workers[i].kill()
		o.workers[i] = o.role("stream")
	}
	o.recover()
	return fmt.Sprintf("SIGKILL of one of 3 workers, %d times", kills)
}

// freezeWorkers stops a worker until the others have done its work, and wakes it in the middle of what it was doing.
func freezeWorkers(o *ordeal) string {
	freezes := o.times(4, 1)
	for i := range freezes {
		w := o.workers[i%len(o.workers)]
		o.pass(0, time.Second)
		must(o.t, w.cmd.Process.Signal(syscall.SIGSTOP))
		o.recover()
		o.pass(0, 2*time.Second)
		must(o.t, w.cmd.Process.Signal(syscall.SIGCONT))
		o.recover()
	}
	return fmt.Sprintf("SIGSTOP of one of 2 workers until the other had taken over, then SIGCONT, %d times", freezes)
}

// scaleWorkers adds and removes workers.
func scaleWorkers(o *ordeal) string {
	changes := 0
	for range 3 {
		for len(o.workers) < 4 {
			o.workers = append(o.workers, o.role("stream"))
			changes++
			o.pass(100*time.Millisecond, 3*time.Second)
		}
		for len(o.workers) > 1 {
			i := o.random.IntN(len(o.workers))
			o.workers[i].stop()
			o.workers = append(o.workers[:i], o.workers[i+1:]...)
			changes++
			o.pass(100*time.Millisecond, 3*time.Second)
		}
	}
	o.recover()
	return fmt.Sprintf("1 to 4 workers and back to 1, 3 times: %d starts and SIGTERMs", changes)
}

// killBrokers kills one broker after another; the first is the controller, too.
func killBrokers(o *ordeal) string {
	order := []int{2, 3, 1}[:o.times(3, 1)]
	for _, broker := range order {
		o.kafkaCluster.kill(o.t, broker)
		if broker != 1 { // without the controller nobody leads what it led
			o.recover()
		}
		o.pass(time.Second, 3*time.Second)
		o.kafkaCluster.restart(o.t, broker)
		o.recover()
	}
	return fmt.Sprintf("SIGKILL and restart of %d of 3 brokers, one after the other", len(order))
}

func killRedis(o *ordeal) string {
	kills := o.times(5, 1)
	for range kills {
		o.pass(500*time.Millisecond, 3*time.Second)
		o.chaosRedis.server.kill()
		o.chaosRedis.server.start()
		o.recover()
	}
	return fmt.Sprintf("SIGKILL and restart of Redis on its append-only file, %d times", kills)
}

// loseRedis takes Redis away; a worker is told to stop meanwhile, and must.
func loseRedis(o *ordeal) string {
	o.chaosRedis.server.kill()
	back := time.After(30 * time.Second)
	o.pass(time.Second, 5*time.Second)
	o.workers[0].stop()
	<-back
	o.chaosRedis.server.start()
	o.workers[0] = o.role("stream")
	o.recover()
	return "Redis down for 30 s, SIGTERM of a worker meanwhile"
}

func flushRedis(o *ordeal) string {
	flushes := o.times(5, 2)
	for i := range flushes {
		o.pass(500*time.Millisecond, 2*time.Second)
		o.chaosRedis.server.do("FLUSHALL")
		if i%2 == 1 { // while it is being filled again
			o.pass(0, 500*time.Millisecond)
			o.chaosRedis.server.do("FLUSHALL")
		}
		o.recover()
	}
	return fmt.Sprintf("FLUSHALL %d times, and again while Redis is being filled every other time", flushes)
}

// replicatedRedis is a primary and a replica, with a network between them, behind one address, as a virtual IP or a Kubernetes
// service gives.
func replicatedRedis(o *ordeal) string {
	r := &o.chaosRedis
	r.server, r.replica = startRedis(o.t), startRedis(o.t)
	r.link = startProxy(o.t, r.server.addr())
	r.replica.follow(r.link.addr())
	r.address = startProxy(o.t, r.server.addr())
	return r.address.addr()
}

func failOver(o *ordeal) string {
	r := &o.chaosRedis
	failovers, lost := o.times(3, 1), int64(0)
	for range failovers {
		o.pass(0, time.Second)
		r.link.stall(true)
		r.server.await("to be ahead of its replica", func() bool { return behind(r.server, r.replica) > 100_000 })
		lost += behind(r.server, r.replica)
		r.server.kill()
		r.link.point("")
		r.link.stall(false)
		r.replica.do("REPLICAOF", "NO", "ONE")
		r.address.point(r.replica.addr())
		o.recover()
		r.server.start() // with what it had: it must take over the other's
		r.server, r.replica = r.replica, r.server
		r.link.point(r.server.addr())
		r.replica.follow(r.link.addr())
	}
	return fmt.Sprintf("SIGKILL of the primary and promotion of a replica that lacked its last writes, %d times, %d KiB of writes lost", failovers, lost>>10)
}

// behind is how many bytes of writes a replica lacks.
func behind(primary, replica *redisServer) int64 {
	return primary.replicated("master_repl_offset") - replica.replicated("slave_repl_offset")
}

// watchedRedis is a primary and a replica with a password, found by Sentinel.
func watchedRedis(o *ordeal) string {
	const name, password = "flights", "s3cret"
	r := &o.chaosRedis
	secret := []string{"--requirepass", password, "--masterauth", password}
	r.server, r.replica = startRedis(o.t, secret...), startRedis(o.t, secret...)
	r.replica.follow(r.server.addr())
	r.sentinel = startSentinel(o.t, name, r.server)
	o.flags = []string{"--redis-master", name, "--redis-password", password}
	o.redisConfig.Addrs, o.redisConfig.Master, o.redisConfig.Password = []string{r.sentinel.addr()}, name, password
	return r.sentinel.addr()
}

func failOverBySentinel(o *ordeal) string {
	r := &o.chaosRedis
	r.replica.do("CONFIG", "SET", "masterauth", "wrong")
	r.server.do("CLIENT", "KILL", "TYPE", "replica")
	r.server.await("to be ahead of its replica", func() bool { return behind(r.server, r.replica) > 100_000 })
	lost := behind(r.server, r.replica)
	r.server.kill()
	began := time.Now()
	r.replica.await("to be promoted", func() bool { return r.replica.info("replication", "role") == "master" })
	promoted := time.Since(began)
	o.recover()
	return fmt.Sprintf("SIGKILL of the primary; Sentinel promoted a replica that lacked %d KiB of writes after %.0f s", lost>>10, promoted.Seconds())
}

func clusteredRedis(o *ordeal) string {
	o.chaosRedis.cluster = startRedisCluster(o.t)
	o.redisConfig.Cluster = true
	return o.chaosRedis.cluster.seeds()
}

// shakeCluster moves slots that are in use, then kills a primary.
func shakeCluster(o *ordeal) string {
	slots := o.times(2000, 600)
	c := o.chaosRedis.cluster
	c.move(slots, 1, 2)
	o.recover()
	if o.short {
		return fmt.Sprintf("3 primaries; %d slots moved to another primary", slots)
	}
	c.move(slots, 2, 1)
	o.recover()
	c.nodes[0].kill()
	c.replica.await("to be promoted", func() bool { return c.replica.info("replication", "role") == "master" })
	o.recover()
	c.nodes[0].start()
	c.nodes[0].await("to become a replica", func() bool { return c.nodes[0].info("replication", "role") == "slave" })
	o.recover()
	return fmt.Sprintf("3 primaries; %d slots moved to another primary and back, SIGKILL of a primary, its replica took over", slots)
}

// distantRedis has a network before it.
func distantRedis(o *ordeal) string {
	o.chaosRedis.server = startRedis(o.t)
	o.chaosRedis.address = startProxy(o.t, o.chaosRedis.server.addr())
	return o.chaosRedis.address.addr()
}

func slowRedis(o *ordeal) string {
	p := o.chaosRedis.address
	p.slow(func() time.Duration { return 20 * time.Millisecond })
	o.pass(10*time.Second, 11*time.Second)
	stalls := 3
	for range stalls { // longer than a write is waited for: it lands when nobody waits for it any more
		p.stall(true)
		o.pass(4*time.Second, 8*time.Second)
		p.stall(false)
		o.pass(time.Second, 3*time.Second)
	}
	p.slow(nil)
	o.recover()
	return fmt.Sprintf("40 ms a round trip, and %d stalls of 4 to 8 s", stalls)
}

// smallDisk puts the offline files on a disk of 24 MiB. It takes root.
func smallDisk(o *ordeal) string {
	must(o.t, syscall.Mount("none", o.data, "tmpfs", 0, "size=24m"))
	o.t.Cleanup(func() { must(o.t, syscall.Unmount(o.data, syscall.MNT_DETACH)) })
	return oneRedis(o)
}

// fillDisk fills the disk; a worker starts on it while it is full.
func fillDisk(o *ordeal) string {
	ballast := filepath.Join(o.data, "ballast")
	fills := o.times(3, 1)
	for i := range fills {
		fillDiskWith(o.t, ballast)
		o.pass(8*time.Second, 9*time.Second) // longer than between two commits
		o.workers[i%len(o.workers)].kill()
		o.workers[i%len(o.workers)] = o.role("stream")
		o.pass(3*time.Second, 4*time.Second)
		must(o.t, os.Remove(ballast))
		o.recover()
	}
	return fmt.Sprintf("no space for offline files for 12 s, %d times; SIGKILL of a worker meanwhile", fills)
}
