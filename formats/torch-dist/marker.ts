/** A path that only a distributed checkpoint has below its folder. */
export const DIST_MARKER = /^(\.metadata|[^/]+\/\.zarray)$/;
