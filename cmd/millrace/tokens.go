package main

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/serving/access"
)

// tokensCommand manages the file of bearer tokens.
type tokensCommand struct {
	New newTokenCommand `cmd:"" help:"Add a token to a file of tokens, and print it: the file holds its hash alone."`
}

type newTokenCommand struct {
	Tokens string         `help:"File of tokens; it is made where there is none." env:"MILLRACE_TOKENS" type:"path" placeholder:"FILE" required:""`
	Name   string         `help:"Whom the token is for." placeholder:"NAME" required:""`
	Rights []access.Right `help:"What it may do: score, features, push, metrics, admin." placeholder:"RIGHT" required:""`
	Models []string       `help:"Models it is for; all without." placeholder:"NAME"`
	For    time.Duration  `help:"How long it is good for; for ever without." placeholder:"DURATION"`
}

func (c *newTokenCommand) Run(_ context.Context, env *environment) error {
	entry := access.Entry{Name: c.Name, Rights: c.Rights, Models: c.Models}
	if c.For > 0 {
		until := time.Now().Add(c.For).UTC().Truncate(time.Second)
		entry.Expires = &until
	}
	token, err := access.AddToken(c.Tokens, entry)
	if err != nil {
		return err
	}
	fmt.Fprintln(env.out, token)
	return nil
}
