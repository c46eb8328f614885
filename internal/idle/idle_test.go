package idle

import "testing"

// What was given back is used again, the last first, and no more waits than may.
func TestMemory(t *testing.T) {
	m := Memory[string]{Most: 10}
	if _, ok := m.Get(); ok {
		t.Error("something waits before anything was given back")
	}
	m.Put("first", 4)
	m.Put("second", 4)
	m.Put("too much", 3)
	m.Put("third", 2)
	for _, want := range []string{"third", "second", "first"} {
		if got, ok := m.Get(); !ok || got != want {
			t.Errorf("%q waits: %t, must be %q", got, ok, want)
		}
	}
	if _, ok := m.Get(); ok {
		t.Error("more waits than may")
	}
	m.Put("again", 10)
	if got, ok := m.Get(); !ok || got != "again" {
		t.Errorf("after all were taken, %q waits: %t", got, ok)
	}
}
