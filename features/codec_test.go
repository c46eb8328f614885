package features

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// everything is a group with every aggregate, several windows and a remainder.
func everything(t testing.TB) *Group {
	d := Definition{Windows: []string{"10s", "5m", Lifetime}, Lateness: time.Minute}
	for _, f := range everyFeature {
		d.Features = append(d.Features, f.definition)
	}
	return compiled(t, d)
}

func lived(t testing.TB, g *Group, events int64) *Entity {
	rng := rand.New(rand.NewPCG(uint64(events), 3))
	e := g.NewEntity()
	at := int64(1e12)
	for seq := range events {
		at += rng.Int64N(4000)
		c := oracleCases[1]
		if _, err := g.Add(e, c.event(rng, at, seq, nil).row(), at-rng.Int64N(2)*rng.Int64N(600000), seq); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func TestEncodedStatesComeBackAsTheyWere(t *testing.T) {
	g := everything(t)
	reused := g.NewEntity()
	for _, events := range []int64{0, 1, 2, 50, 3000, 7} {
		e := lived(t, g, events)
		state := e.AppendBinary(nil)
		again, err := g.Decode(state)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.DecodeInto(reused, state); err != nil {
			t.Fatal(err)
		}
		clear(state[:len(state)-4]) // no reference to the bytes is kept
		state = e.AppendBinary(nil)
		for what, other := range map[string]*Entity{"decoded": again, "decoded into used memory": reused} {
			if !bytes.Equal(state, other.AppendBinary(nil)) || other.Newest() != e.Newest() {
				t.Errorf("a state of %d events is another when %s", events, what)
			}
			// What it has become must not show in how it goes on either.
			copied, err := g.Decode(state)
			if err != nil {
				t.Fatal(err)
			}
			for i := range int64(300) {
				r := row(0, float64(i%40)/3, string(rune('a'+i%26)))
				for _, x := range []*Entity{copied, other} {
					if _, err := g.Add(x, r, int64(1e12)+i*9000, i); err != nil {
						t.Fatal(err)
					}
				}
			}
			if !bytes.Equal(copied.AppendBinary(nil), other.AppendBinary(nil)) {
				t.Errorf("a state of %d events goes on differently when %s", events, what)
			}
		}
	}
}

func TestAppendBinaryAppends(t *testing.T) {
	g := everything(t)
	e := lived(t, g, 20)
	prefix := []byte("before")
	b := e.AppendBinary(prefix)
	if !bytes.HasPrefix(b, prefix) || !bytes.Equal(b[len(prefix):], e.AppendBinary(nil)) {
		t.Error("the state is not appended")
	}
}

func TestDamagedStatesAreCorrupt(t *testing.T) {
	g := everything(t)
	state := lived(t, g, 100).AppendBinary(nil)
	other := compiled(t, Definition{Windows: []string{"1h"}, Features: []FeatureDefinition{{Name: "n", Aggregate: "count()"}}})
	if _, err := other.Decode(state); failure.Of(err) != failure.Corrupt {
		t.Errorf("a state of another group: %v", err)
	}
	for i := range state {
		damaged := bytes.Clone(state)
		damaged[i] ^= 1 << (i % 8)
		if _, err := g.Decode(damaged); failure.Of(err) != failure.Corrupt {
			t.Fatalf("a bit of byte %d changed: %v", i, err)
		}
		if _, err := g.Decode(state[:i]); failure.Of(err) != failure.Corrupt {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
}

// signed gives bytes the header and checksum of the group, so that what lies between is looked at.
func signed(g *Group, body []byte) []byte {
	b := append([]byte{layoutVersion}, binary.LittleEndian.AppendUint32(nil, g.fingerprint)...)
	b = append(b, body...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, g.checksum))
}

// Bytes that pass the checksum and are no state must neither panic nor take more memory than they are worth, and what is
// accepted must be readable, must go on and must be stored again as itself.
func FuzzDecode(f *testing.F) {
	g := everything(f)
	for _, events := range []int64{0, 1, 3, 40, 400} {
		state := lived(f, g, events).AppendBinary(nil)
		f.Add(state[stateHeader : len(state)-stateChecksum])
	}
	e := g.NewEntity()
	for i := range 400 { // registers
		r := row(0, 1, string(binary.AppendUvarint(nil, uint64(i))))
		add(f, g, e, r, int64(i), int64(i))
	}
	state := e.AppendBinary(nil)
	f.Add(state[stateHeader : len(state)-stateChecksum])
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := g.Decode(signed(g, body))
		if err != nil {
			if failure.Of(err) != failure.Corrupt {
				t.Fatalf("%v is not corrupt", err)
			}
			return
		}
		if e.Bytes() > 4096+64*len(body) {
			t.Fatalf("%d bytes became %d", len(body), e.Bytes())
		}
		stored := e.AppendBinary(nil)
		again, err := g.Decode(stored)
		if err != nil {
			t.Fatalf("a state that was read cannot be stored: %v", err)
		}
		if !bytes.Equal(stored, again.AppendBinary(nil)) {
			t.Fatal("a stored state is stored again as another")
		}
		at := int64(0)
		if e.Newest() != math.MinInt64 {
			at = e.Newest()
		}
		g.Read(e, at, nil)
		g.Read(e, at+1, nil)
		g.Read(e, at-ms(time.Minute), nil)
		for i, t0 := range []int64{at, at + 3, at - 100000, at + 1000000} {
			if t0 > -maxTime && t0 < maxTime {
				if _, err := g.Add(e, row(0, 1, "LAX"), t0, int64(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := g.Decode(e.AppendBinary(nil)); err != nil {
			t.Fatalf("a state that was read cannot go on: %v", err)
		}
	})
}

func TestWordsComeBackAsTheyWere(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	words := []uint64{0, 1, 255, 256, math.MaxUint64, 1 << 63, 1<<63 | 1, math.Float64bits(1), math.Float64bits(-0.1), 0xff << 56, 0xff << 8}
	for len(words) < 5000 {
		words = append(words, rng.Uint64()>>rng.IntN(64)<<rng.IntN(64))
	}
	for _, n := range []int{0, 1, 2, 3, 10, 11, len(words), len(words) - 1} {
		b := appendWords(nil, words[:n]...)
		u := unpacker{b: b}
		got := make([]uint64, n)
		u.words(got)
		if u.failed || len(u.b) > 0 {
			t.Fatalf("%d words leave %d bytes", n, len(u.b))
		}
		for i, w := range got {
			if w != words[i] {
				t.Fatalf("word %x comes back as %x", words[i], w)
			}
		}
		for cut := range min(len(b), 40) {
			short := unpacker{b: b[:len(b)-1-cut]}
			if short.words(got); !short.failed {
				t.Fatalf("%d words are read from %d bytes less", n, cut+1)
			}
		}
	}
}

func TestStoredRoundNumbersAreShort(t *testing.T) {
	for w, length := range map[uint64]int{0: 1, 7: 2, 300: 3, math.Float64bits(5): 3, math.Float64bits(1000): 4, rankOfFloat(17): 3, math.Float64bits(0.1): 9} {
		if got := len(appendWords(nil, w)); got != length {
			t.Errorf("the word %x is stored in %d bytes, want %d", w, got, length)
		}
	}
}
