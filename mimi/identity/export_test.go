package identity

import "github.com/privyseal/privyseal/credentials"

// RuleOf is the table of the rules to which names of errors belong; one that is
// not in it is of framing.
func RuleOf() map[credentials.Code]Rule { return ruleOf }
