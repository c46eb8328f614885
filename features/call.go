package features

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/schemas"
)

// call is a parsed aggregate such as "quantile(delay, 0.95)".
type call struct {
	name       string
	aggregate  aggregate
	argument   *Expression // nil where rows are counted
	parameters []float64
}

func parseCall(src string, s *schemas.Schema) (call, error) {
	text := strings.TrimSpace(src)
	open := strings.IndexByte(text, '(')
	if open <= 0 || !strings.HasSuffix(text, ")") {
		return call{}, fmt.Errorf("%q is no aggregate, write one like mean(column)", src)
	}
	c := call{name: strings.TrimSpace(text[:open])}
	var known bool
	if c.aggregate, known = aggregates[c.name]; !known {
		return call{}, fmt.Errorf("%s", unknown("aggregate", c.name, aggregates))
	}
	args, err := splitArguments(text[open+1 : len(text)-1])
	if err != nil {
		return call{}, fmt.Errorf("%q: %w", src, err)
	}
	if err := c.takeArguments(args, s); err != nil {
		return call{}, err
	}
	return c, nil
}

func (c *call) takeArguments(args []string, s *schemas.Schema) error {
	most := 1 + len(c.aggregate.parameters)
	least := most
	if c.aggregate.argument == optionalArgument {
		least--
	}
	if len(args) < least || len(args) > most {
		return fmt.Errorf("%s takes %s, not %d arguments", c.name, c.signature(), len(args))
	}
	if len(args) == 0 {
		return nil
	}
	var err error
	if c.argument, err = compileAny(args[0], s); err != nil {
		return err
	}
	kind := c.argument.Kind()
	switch {
	case c.aggregate.argument == numberArgument && !kind.Numeric():
		return fmt.Errorf("%s needs a number, %q is %s", c.name, args[0], kind)
	case c.aggregate.argument == orderedArgument && !kind.Numeric() && kind != schemas.Time:
		return fmt.Errorf("%s needs a number or a time, %q is %s", c.name, args[0], kind)
	}
	for i, p := range args[1:] {
		f, err := strconv.ParseFloat(p, 64)
		if err != nil || !finite(f) {
			return fmt.Errorf("%s: %s is %q, a number is needed", c.name, c.aggregate.parameters[i], p)
		}
		c.parameters = append(c.parameters, f)
	}
	if c.aggregate.check != nil {
		return c.aggregate.check(c.parameters)
	}
	return nil
}

func (c *call) signature() string {
	if c.aggregate.argument == optionalArgument {
		return "no argument or one"
	}
	return "(" + strings.Join(append([]string{"column or expression"}, c.aggregate.parameters...), ", ") + ")"
}

// canonical is the call in one spelling, for the group's version.
func (c *call) canonical() string {
	parts := make([]string, 0, 1+len(c.parameters))
	if c.argument != nil {
		parts = append(parts, c.argument.canonical)
	}
	for _, p := range c.parameters {
		parts = append(parts, strconv.FormatFloat(p, 'g', -1, 64))
	}
	return c.name + "(" + strings.Join(parts, ", ") + ")"
}

// splitArguments cuts at the commas that are not inside brackets or quotes. No text is no argument.
func splitArguments(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var args []string
	depth, start := 0, 0
	quote := byte(0)
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case quote != 0:
			if b == '\\' && quote != '`' {
				i++
			} else if b == quote {
				quote = 0
			}
		case b == '"' || b == '\'' || b == '`':
			quote = b
		case b == '(' || b == '[' || b == '{':
			depth++
		case b == ')' || b == ']' || b == '}':
			if depth--; depth < 0 {
				return nil, fmt.Errorf("a bracket is closed that was not opened")
			}
		case b == ',' && depth == 0:
			args = append(args, strings.TrimSpace(text[start:i]))
			start = i + 1
		}
	}
	if depth != 0 || quote != 0 {
		return nil, fmt.Errorf("a bracket or quote is not closed")
	}
	return append(args, strings.TrimSpace(text[start:])), nil
}
