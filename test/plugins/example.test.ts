/** The example of docs/extending.md passes the suites, as its author runs them. */
import "../../fixtures/plugin/plugin.test.js";
